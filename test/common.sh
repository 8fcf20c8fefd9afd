# Shared by test/*.sh, the Makefile and .ci/run, which source it: where the project is, which Python runs it, and the
# virtual environments that it makes for itself. Functions that print a result print nothing else; messages go to stderr.
#
#   PYTHON         the interpreter to use, instead of looking for one
#   VENVS          where the environments .venv and .venv37 are kept; the project's root if not given
#   REQUIRE_PY37   1: leaving out one of the two test runs is an error
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
STAMP=made-by-gitloss # a file in an environment made here: "unfinished", or the checksum of the lock file it was made from

say() { printf '%s\n' "$@" >&2; }

die() { # STATUS MESSAGE...
  local status=$1
  shift
  say "$@"
  exit "$status"
}

# --- what an interpreter is and has -----------------------------------------------------------------------------------------

python_version() { # PYTHON: its version as 3.11; fails if it does not run, as a pyenv shim of a version that is not selected
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

lacks() { # PYTHON MODULE...: those modules that it has not; nothing is imported, so this is fast. Fails if it does not run.
  "$1" -c '
import sys
sys.path[:] = filter(None, sys.path)  # without the current folder
import importlib.util
print(" ".join(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))' "${@:2}" 2>/dev/null
}

run_module() { # PYTHON MODULE [ARGUMENT...]: a module of this project, whatever files of the same names the current folder has
  "$1" -c '
import _signal  # built in. Ctrl-C ends the process silently until the command has imported TensorFlow; see trainers/__init__.py.
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
import sys
sys.path[:] = [sys.argv.pop(1), *filter(None, sys.path)]
sys.argv[0] = "-m"
import runpy
runpy.run_module(sys.argv.pop(1), None, "__main__", True)' "$ROOT" "${@:2}"
}

has() { # PYTHON MODULE...: has it all of them?
  local missing
  missing=$(lacks "$@") && [[ -z $missing ]]
}

needed_modules() { # PYTHON: what the project imports there
  local modules='tensorflow numpy absl tensorboard matplotlib tqdm PIL'
  [[ $(python_version "$1") == 3.7 ]] || modules+=' tf_keras'
  printf '%s\n' "$modules"
}

can_make_environments() { # PYTHON [VERSIONS]: does it run, is it of a version that the project runs on, has it venv and pip?
  local version
  version=$(python_version "$1") || return 1
  [[ " ${2:-3.7 3.10 3.11 3.12 3.13} " == *" $version "* ]] && has "$1" venv ensurepip
}

find_python() { # the interpreter to make .venv with; nothing if there is none
  local name candidate
  for name in python3.11 python3.12 python3.13 python3.10 python3 python3.7; do
    while read -r candidate; do
      if can_make_environments "$candidate"; then
        printf '%s\n' "$candidate"
        return
      fi
    done < <(type -ap "$name")
  done
  find_python37
}

find_python37() { # a Python 3.7 that works, on PATH or under pyenv; nothing if there is none
  local candidate
  while read -r candidate; do
    if can_make_environments "$candidate" 3.7; then
      printf '%s\n' "$candidate"
      return
    fi
  done < <(
    type -ap python3.7
    printf '%s\n' ${PYENV_ROOT:+"$PYENV_ROOT"/versions/3.7.*/bin/python} "$HOME"/.pyenv/versions/3.7.*/bin/python
  )
}

# --- environments -----------------------------------------------------------------------------------------------------------

requirements_for() { # PYTHON: the file that says what to install there
  case $(python_version "$1") in
    3.7) echo "$ROOT/requirements-py37.lock" ;;
    3.11) echo "$ROOT/requirements-py311.lock" ;;
    *) echo "$ROOT/requirements-dev.txt" ;;
  esac
}

fingerprint() { # PYTHON: of what is to be installed there
  local file
  file=$(requirements_for "$1")
  if [[ $file == *.lock ]]; then cksum <"$file"; else cat "$file" "$ROOT/requirements.txt" | cksum; fi
}

environment_is_ready() { # FOLDER: complete, and as the lock file says today if it was made here
  local python=$1/bin/python modules
  [[ -x $python ]] || return 1
  read -ra modules <<<"$(needed_modules "$python")"
  has "$python" "${modules[@]}" || return 1
  [[ ! -e $1/$STAMP || $(<"$1/$STAMP") == "$(fingerprint "$python")" ]]
}

install_into() { # FOLDER
  "$1/bin/python" -m pip install -qq --no-input --disable-pip-version-check -r "$(requirements_for "$1/bin/python")" >&2 ||
    die 2 "$1: its packages could not be installed; the lines above say why. The next call tries again."
}

make_environment() { # FOLDER PYTHON: afresh; the stamp is finished last, so that an interrupted making is seen
  local folder=$1 python=$2
  say "Making $folder with Python $(python_version "$python"). This is done once and takes a few minutes ..."
  rm -rf "$folder"
  mkdir -p "$folder"
  echo unfinished >"$folder/$STAMP"
  "$python" -m venv "$folder" >&2 || die 2 "$folder: $python could not make a virtual environment."
  install_into "$folder"
  fingerprint "$folder/bin/python" >"$folder/$STAMP"
}

complete_environment() { # FOLDER PYTHON
  if environment_is_ready "$1"; then # by another process, while this one waited for it
    return
  elif [[ -e $1/$STAMP || ! -e $1 ]]; then
    make_environment "$1" "$2"
  elif can_make_environments "$1/bin/python"; then # the user's own: add to it, delete nothing
    say "Installing $(basename "$(requirements_for "$1/bin/python")") into $1 ..."
    install_into "$1"
  else
    die 2 "$1 has no Python that works. Remove it, and it is made anew."
  fi
}

ensure_environment() { # FOLDER PYTHON: one process at a time, where there is flock
  environment_is_ready "$1" && return
  mkdir -p "$(dirname "$1")"
  (
    if type -p flock >/dev/null; then flock 9; fi
    complete_environment "$1" "$2"
  ) 9>"$1.busy"
}

main_environment() { # .venv, made if need be; its interpreter
  local folder=${VENVS:-$ROOT}/.venv python
  if ! environment_is_ready "$folder"; then
    python=$(find_python)
    [[ -n $python ]] || die 2 'No Python found to make .venv with. Expected 3.7 or 3.10 to 3.13, with venv and ensurepip, on PATH.'
    ensure_environment "$folder" "$python" || exit
  fi
  printf '%s\n' "$folder/bin/python"
}

chosen_python() { # $PYTHON, if it will do
  local missing modules path
  [[ $(python_version "$PYTHON") == [0-9]*.[0-9]* ]] || die 2 "PYTHON: expected a Python 3 that has tensorflow. Received: $PYTHON, which does not run as one"
  read -ra modules <<<"$(needed_modules "$PYTHON")"
  missing=$(lacks "$PYTHON" "${modules[@]}") || die 2 "PYTHON: expected a Python 3 that has tensorflow. Received: $PYTHON, which does not run"
  [[ -z $missing ]] || die 2 "PYTHON: expected a Python 3 that has ${modules[*]}. Received: $PYTHON, without $missing"
  path=$(type -p "$PYTHON")
  [[ $path == /* ]] || path=$PWD/$path
  printf '%s\n' "$path"
}

pick_python() { # the interpreter for trainings: $PYTHON, the active environment's, .venv, or a .venv made now
  local python modules missing
  if [[ -n ${PYTHON:-} ]]; then
    chosen_python
    return
  fi
  for python in python python3; do
    if has "$python" tensorflow; then
      read -ra modules <<<"$(needed_modules "$python")"
      missing=$(lacks "$python" "${modules[@]}")
      # Not passed over: who has a tensorflow of their own, with the adapter of their device, wants that one.
      [[ -z $missing ]] || die 2 "$(type -p "$python") has tensorflow, but not $missing: install $ROOT/requirements.txt there, or leave that environment."
      type -p "$python"
      return
    fi
  done
  main_environment
}

# --- what make does ---------------------------------------------------------------------------------------------------------

train() { # FLAGFILE [--flag=value ...]
  local python
  python=$(pick_python) || exit
  run_module "$python" trainers.run --flagfile="$ROOT/$1" "${@:2}"
}

tool_python() { # $PYTHON or .venv, for the tests and the linter
  if [[ -n ${PYTHON:-} ]]; then chosen_python; else main_environment; fi
}

left_out() { # LINE...: a box that nobody misses
  local line bar='****************************************************************************************'
  say '' "$bar"
  say "$bar"
  for line in "$@"; do say "$(printf '** %-82s **' "$line")"; done
  say "$bar"
  say "$bar"
  [[ ${REQUIRE_PY37:-0} != 1 ]] || die 1 'REQUIRE_PY37=1: this is an error.'
}

pytest_with() { # PYTHON LEGS [ARGUMENT...]: LEGS test runs share the cores; at most four processes each, for their memory
  local processes parallel=()
  has "$1" pytest hypothesis || die 2 "$1 has no pytest and hypothesis: install $ROOT/requirements-dev.txt there."
  processes=$(($(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1) / $2))
  if ((processes > 1)) && has "$1" xdist; then parallel=(-n "$((processes < 4 ? processes : 4))" --dist loadfile); fi
  say '' "== Tests on Python $(python_version "$1"): $1"
  (cd "$ROOT" && "$1" -m pytest ${parallel[@]+"${parallel[@]}"} "${@:3}")
}

pytest_with_both() ( # PYTHON, PYTHON37 of an environment, [ARGUMENT...]: at once, as a test waits or has work for one core half of the time
  status=0
  said=${2%/bin/python}/tests.log
  # The peer: the tests of what passes between the two TensorFlows need both interpreters.
  GITLOSS_PEER_PYTHON=$1 pytest_with "$2" 2 "${@:3}" >"$said" 2>&1 &
  other=$!
  trap 'kill "$other" 2>/dev/null || true' EXIT # the shell starts what goes on beside it deaf to Ctrl-C
  pytest_with "$1" 2 "${@:3}" || status=$?
  wait "$other" || status=$?
  cat "$said" >&2
  exit "$status"
)

run_tests() { # [ARGUMENT...]: on the main interpreter and on Python 3.7
  local python python37 status=0
  python=$(tool_python) || exit
  python37=$(find_python37)
  if [[ $(python_version "$python") != 3.7 && -n $python37 ]]; then
    ensure_environment "${VENVS:-$ROOT}/.venv37" "$python37" || exit
    pytest_with_both "$python" "${VENVS:-$ROOT}/.venv37/bin/python" "$@"
    return
  fi
  pytest_with "$python" 1 "$@" || status=$?
  if [[ $(python_version "$python") == 3.7 ]]; then
    left_out 'THE TESTS DID NOT RUN ON TENSORFLOW 2.21.' 'The only Python found is 3.7. Install Python 3.11 to run them there too.'
  else
    left_out 'THE TESTS DID NOT RUN ON PYTHON 3.7 WITH TENSORFLOW 1.15.' 'No python3.7 works here, neither on PATH nor under pyenv.' \
      'A change that breaks the Ascend hosts would not be seen.'
  fi
  return "$status"
}

run_lint() { # ruff, mypy, and shellcheck where there is one
  local python
  python=$(tool_python) || exit
  has "$python" ruff mypy || die 2 "$python has no ruff or no mypy, which need Python 3.10 or later."
  cd "$ROOT" || exit
  "$python" -m ruff format --check . || exit
  "$python" -m ruff check . || exit
  "$python" -m mypy || exit
  if type -p shellcheck >/dev/null; then shellcheck -x test/*.sh .ci/run || exit; fi
}

# --- the package ------------------------------------------------------------------------------------------------------------

check_wheel() ( # PYTHON: builds the wheel, installs it in an environment of its own, and uses it there; into dist/ if it works
  folder=${VENVS:-$ROOT}/.venv-wheel
  requirements=$(requirements_for "$1")
  [[ $requirements == *.lock ]] && pins=(--constraint "$requirements") || pins=()
  say '' "== The wheel on Python $(python_version "$1"): $1"
  rm -rf "$folder"
  trap 'rm -rf "$folder"' EXIT
  "$1" -m venv "$folder" >&2 || die 2 "$folder: $1 could not make a virtual environment."
  python=$folder/bin/python
  pip=("$python" -m pip -qq --no-input --disable-pip-version-check)
  # Built of a copy: setuptools also packs what an earlier build left in build/.
  mkdir -p "$folder/source" || exit
  cp -R "$ROOT"/{gitloss,pyproject.toml,README.md,LICENSE} "$folder/source" || exit
  "${pip[@]}" wheel "$folder/source" --no-deps --wheel-dir "$folder/dist" >&2 || die 1 'The wheel could not be built.'
  # Only the wheel and what it asks for, in the versions that the tests run with.
  "${pip[@]}" install ${pins[@]+"${pins[@]}"} "$folder"/dist/*.whl >&2 || die 1 'The wheel could not be installed.'
  (cd "$folder" && "$python" -I "$ROOT/tests/wheel_check.py" "$ROOT" >&2) || die 1 'The wheel does not work.'
  mkdir -p "$ROOT/dist" && cp "$folder"/dist/*.whl "$ROOT/dist"
)

run_wheel() { # on the main interpreter and on Python 3.7
  local python python37
  python=${PYTHON:-$(find_python)}
  [[ -n $python ]] || die 2 'No Python found to make an environment with. Expected 3.7 or 3.10 to 3.13, with venv and ensurepip, on PATH.'
  can_make_environments "$python" || die 2 "PYTHON: expected a Python 3.7 or 3.10 to 3.13 with venv and ensurepip. Received: $python"
  python37=$(find_python37)
  check_wheel "$python" || exit
  [[ $(python_version "$python") != 3.7 ]] || return 0
  if [[ -n $python37 ]]; then
    check_wheel "$python37"
  else
    left_out 'THE WHEEL WAS NOT TESTED ON PYTHON 3.7 WITH TENSORFLOW 1.15.' 'No python3.7 works here, neither on PATH nor under pyenv.'
  fi
}

# --- the model zoo's scripts ------------------------------------------------------------------------------------------------

zoo_help() { # WHAT
  cat <<END
usage: bash test/$(basename "$0") [--data_path=FOLDER] [--flag=value ...]

$1

  --resume=auto           continue an interrupted training; without it, each call starts anew and moves the earlier run aside
  --data_path=FOLDER      IDX files, gzipped or raw, or a file mnist.npz. Default: the MNIST that comes with the project.
  --ckpt_path=PATH        checkpoint with the initial weights, or a run's folder: --init_checkpoint of the trainer
  --precision_mode=MODE   precision mode of the NPU
  --over_dump=True        on the NPU: dump overflows to output/overflow_dump/<device>
  --data_dump_flag=True   on the NPU: dump inputs and outputs of all operators to output/data_dump/<device>
  --data_dump_step=10     the steps that --data_dump_flag dumps, as 0|5|10-20
  --profiling=True        on the NPU: profile to output/profiling/<device>
  --autotune=True         on the NPU: tune the operators before the training; work files in output/autotune/<device>
  --flag=value            any other flag of the trainer: python -m trainers.run --help lists them
  -h, --help              this text

  ASCEND_DEVICE_ID        the device; 0 if not set. The run goes to output/<ASCEND_DEVICE_ID>/ of the project.
  RANK_TABLE_FILE         the rank table, for training on several cards
  PYTHON                  the interpreter; else the active environment's, else .venv, which is made if need be.
END
}

zoo_environment() { # RANK_SIZE
  export ASCEND_DEVICE_ID=${ASCEND_DEVICE_ID:-${DEVICE_ID:-0}}
  export RANK_SIZE=$1
  export RANK_ID=${RANK_ID:-0}
  export JOB_ID=${JOB_ID:-10087}
  export ASCEND_GLOBAL_LOG_LEVEL=${ASCEND_GLOBAL_LOG_LEVEL:-3}
}

is_true() { # NAME VALUE
  case $2 in
    [Tt]rue | 1) ;;
    [Ff]alse | 0) return 1 ;;
    *) die 2 "--$1: expected True or False. Received: $2" ;;
  esac
}

zoo_folder() { # NAME: a folder of that name for this device, made
  mkdir -p "$ROOT/output/$1/$ASCEND_DEVICE_ID" || die 2 "output/$1: expected a folder that can be made."
  printf '%s\n' "$ROOT/output/$1/$ASCEND_DEVICE_ID"
}

# What the zoo's own arguments come to as settings of the NPU's session, in the array TRAINER_FLAGS with all other arguments as
# they are. A dump is for one device, so each rank does this for itself.
zoo_flags() { # [--flag=value ...]
  local argument settings='' dump='' dump_step=10 folder
  TRAINER_FLAGS=()
  for argument in "$@"; do
    case $argument in
      --over_dump=*) is_true over_dump "${argument#*=}" && dump+=overflow ;;
      --data_dump_flag=*) is_true data_dump_flag "${argument#*=}" && dump+=data ;;
      --data_dump_step=*) dump_step=${argument#*=} ;;
      --profiling=*)
        if is_true profiling "${argument#*=}"; then
          folder=$(zoo_folder profiling)
          settings+=",profiling_mode=true,profiling_options={\"output\":\"$folder\",\"training_trace\":\"on\",\"task_trace\":\"on\",\"aicpu\":\"on\",\"fp_point\":\"\",\"bp_point\":\"\"}"
        fi
        ;;
      --autotune=*)
        if is_true autotune "${argument#*=}"; then
          folder=$(zoo_folder autotune)
          settings+=",aoe_mode=2,work_path=$folder"
        fi
        ;;
      --ckpt_path=*) TRAINER_FLAGS+=("--init_checkpoint=${argument#*=}") ;;
      --npu_option=*) settings+=,${argument#*=} ;;
      *) TRAINER_FLAGS+=("$argument") ;;
    esac
  done
  case $dump in
    overflow)
      folder=$(zoo_folder overflow_dump)
      settings+=",enable_dump_debug=true,dump_debug_mode=all,dump_path=$folder"
      ;;
    data)
      folder=$(zoo_folder data_dump)
      settings+=",enable_dump=true,dump_mode=all,dump_step=$dump_step,dump_path=$folder"
      ;;
    ?*) die 2 '--over_dump: expected without --data_dump_flag, of which the NPU can do one. Received: both' ;;
  esac
  [[ -z $settings ]] || TRAINER_FLAGS+=("--npu_option=${settings#,}")
}

zoo_wants_help() { # WHAT [ARGUMENT...]: prints the help if it is asked for
  local argument
  for argument in "${@:2}"; do
    if [[ $argument == -h || $argument == --help ]]; then
      zoo_help "$1"
      return
    fi
  done
  return 1
}

zoo_train() { # WHAT SUFFIX FLAGFILE [--flag=value ...]: trains, then writes and prints what the model zoo looks for
  local suffix=$2 flagfile=$ROOT/$3 python
  if zoo_wants_help "$1" "${@:4}"; then return; fi
  zoo_environment 1
  python=$(pick_python) || exit
  zoo_flags "${@:4}"
  # The working directory stays the user's, so that relative paths in arguments mean what they mean there.
  # Every call is a training of its own, as everywhere in the zoo; --resume=auto continues one that was broken off.
  set -- --flagfile="$flagfile" --resume=never ${TRAINER_FLAGS[@]+"${TRAINER_FLAGS[@]}"}
  run_module "$python" trainers.run "$@" || exit
  "$python" "$ROOT/test/final_result.py" "$suffix" "$@"
}

# --- several cards ----------------------------------------------------------------------------------------------------------

stop_ranks() { # PID...: a rank that waits for one that is gone answers no signal but KILL
  local waited
  kill "$@" 2>/dev/null || true
  for ((waited = 0; waited < ${RANK_GRACE:-20}; waited++)); do
    kill -0 "$@" 2>/dev/null || break
    sleep 1
  done
  kill -KILL "$@" 2>/dev/null || true
}

wait_for_ranks() { # PID...: in the order of ranks. The status of the first that fails; it ends the others
  local pids=("$@") rank status running=$#
  while ((running)); do
    sleep 1
    for rank in "${!pids[@]}"; do
      if kill -0 "${pids[rank]}" 2>/dev/null; then continue; fi
      status=0
      wait "${pids[rank]}" || status=$?
      unset "pids[rank]"
      running=$((running - 1))
      if ((status)); then
        say "rank $rank ended with status $status, and the other ranks with it; see $ROOT/output/train_rank_$rank.log"
        if ((running)); then stop_ranks "${pids[@]}"; fi
        return "$status"
      fi
    done
  done
}

zoo_train_ranks() { # SIZE WHAT SUFFIX FLAGFILE [--flag=value ...]: a process for each card of this host
  local size=$1 suffix=$3 python rank pids=()
  # Elsewhere than on NPUs the ranks would be as many trainings, each by itself: the device is said, not found.
  local flags=(--device=npu --flagfile="$ROOT/$4")
  if zoo_wants_help "$2" "${@:5}"; then return; fi
  [[ -r ${RANK_TABLE_FILE:-} ]] || die 2 "RANK_TABLE_FILE: expected the rank table of the $size cards. Received: ${RANK_TABLE_FILE:-none}"
  zoo_environment "$size"
  python=$(pick_python) || exit
  export RANK_TABLE_FILE
  mkdir -p "$ROOT/output"
  trap 'stop_ranks "${pids[@]}"; exit 143' TERM INT
  for ((rank = 0; rank < size; rank++)); do
    export RANK_ID=$rank ASCEND_DEVICE_ID=$rank
    zoo_flags "${@:5}"
    run_module "$python" trainers.run "${flags[@]}" --resume=never ${TRAINER_FLAGS[@]+"${TRAINER_FLAGS[@]}"} >"$ROOT/output/train_rank_$rank.log" 2>&1 &
    pids+=("$!")
  done
  wait_for_ranks "${pids[@]}" || exit
  export RANK_ID=0 ASCEND_DEVICE_ID=0
  "$python" "$ROOT/test/final_result.py" "$suffix" "${flags[@]}" ${TRAINER_FLAGS[@]+"${TRAINER_FLAGS[@]}"}
}
