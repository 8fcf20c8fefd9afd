"""The scripts of the model zoo on several cards: a process for each rank."""

import sys

import pytest

from machine import BLOCK

RANK = r"""#!/bin/sh
case "$*" in
  *version_info*) echo 3.11 ;;
  *find_spec*) ;;
  *" trainers.run "*)
    shift 3
    echo "$RANK_ID of $RANK_SIZE on $ASCEND_DEVICE_ID, job $JOB_ID" >"$HOME/rank_$RANK_ID"
    echo "$*"
    case "$RANK_ID" in
      "$BAD") exit 5 ;;
      0) mkdir -p "$RUN"; cp "$HOME/results.json" "$HOME/history.jsonl" "$RUN" ;;
    esac
    [ -z "$BAD" ] || exec sleep 300 ;;
  *) exec "REAL" "$@" ;;
esac
"""


@pytest.fixture
def ranks(zoo):
    """`zoo` with pretended ranks: $BAD, if set, names one that fails while the others hang, as on
    the cards.
    """
    zoo.variables = {
        'PYTHON': zoo.script(zoo.home / 'rank', RANK.replace('REAL', sys.executable)),
        'RUN': str(zoo.root / 'output' / '0'),
    }
    (zoo.home / 'table.json').write_text('{}')
    return zoo


def test_eight_ranks_each_with_its_card_and_its_log(ranks):
    status, out, err = ranks.bash(
        'test/train_full_8p.sh',
        '--steps=20',
        RANK_TABLE_FILE=str(ranks.home / 'table.json'),
        **ranks.variables,
    )
    assert status == 0, err
    assert out.splitlines()[0] == BLOCK.splitlines()[0]
    for rank in range(8):
        said = (ranks.home / f'rank_{rank}').read_text()
        assert said == f'{rank} of 8 on {rank}, job 10087\n'
        # A device chosen automatically might be another one, on which each rank would train alone.
        command = f'trainers.run --device=npu --flagfile={ranks.root}/flags/full.cfg'
        log = (ranks.root / 'output' / f'train_rank_{rank}.log').read_text()
        assert command + ' --resume=never --steps=20' in log
    log = (
        ranks.root / 'output' / '0' / 'Gitloss_ID1277_for_TensorFlow_bs128_8p_acc.log'
    ).read_text()
    assert 'RankSize = 8' in log


def test_a_rank_that_fails_ends_the_others_and_the_script(ranks):
    """Rank 5 exits with 5 at once; the seven others would sleep for 300 s."""
    status, out, err = ranks.bash(
        'test/train_performance_8p.sh',
        RANK_TABLE_FILE=str(ranks.home / 'table.json'),
        BAD='5',
        RANK_GRACE='2',
        **ranks.variables,
    )
    assert (status, out) == (5, '')
    assert err == (
        'rank 5 ended with status 5, and the other ranks with it; '
        f'see {ranks.root}/output/train_rank_5.log\n'
    )


def test_several_cards_need_a_rank_table(ranks):
    status, out, err = ranks.bash('test/train_full_8p.sh', **ranks.variables)
    assert (status, out) == (2, '')
    assert err == 'RANK_TABLE_FILE: expected the rank table of the 8 cards. Received: none\n'
