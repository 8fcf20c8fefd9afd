#!/usr/bin/env bash
# The speed of the training on eight cards, in the model zoo's manner. --help tells more.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"

zoo_train_ranks 8 'Trains with flags/performance.cfg on eight cards of one host: 1000 steps, nothing else.' perf flags/performance.cfg "$@"
