#!/usr/bin/env bash
# The speed of the training on one device, in the model zoo's manner. --help tells more.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"

zoo_train 'Trains with flags/performance.cfg on one device: 1000 steps, nothing else.' perf flags/performance.cfg "$@"
