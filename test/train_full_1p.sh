#!/usr/bin/env bash
# The published training on one device, in the model zoo's manner. --help tells more.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"

zoo_train 'Trains with flags/full.cfg on one device: 8000 steps, measured every 1000.' acc flags/full.cfg "$@"
