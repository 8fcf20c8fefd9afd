#!/usr/bin/env bash
# The published training on eight cards, in the model zoo's manner. --help tells more.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"

zoo_train_ranks 8 'Trains with flags/full.cfg on eight cards of one host: 8000 steps, measured every 1000.' acc flags/full.cfg "$@"
