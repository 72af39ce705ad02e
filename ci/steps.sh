# shellcheck shell=bash disable=SC2034
# Functions that run and count steps, and the steps that need no wheel. Sourced after ci/lib.sh.

# A limit in KiB that no step needs. A step that allocates without end fails before it exhausts the machine.
ulimit -S -v 12000000
LOGS=$ROOT/target/ci-logs
mkdir -p "$LOGS"
# A line for each finished step: ok or FAILED, the numbers of passed, failed and skipped tests, and the step's name.
RESULTS=$LOGS/results-of-${0##*/}.txt
: >"$RESULTS"
background=()

# count LOG CODE: prints the numbers of passed, failed and skipped tests in a log of cargo or pytest. Without such
# numbers the step counts as one test.
count() {
  awk -v code="$2" '
    function add(number, word) {
      seen = 1
      if (word ~ /^passed|^xfailed/) passed += number
      else if (word ~ /^failed|^error|^xpassed/) failed += number
      else if (word ~ /^skipped|^ignored/) skipped += number
    }
    # cargo: "test result: ok. 12 passed; 0 failed; 1 ignored; ..."; pytest: "12 passed, 1 skipped in 3.45s".
    /^test result: / || /^=* ?[0-9]+ [a-z]+.* in [0-9.]+s/ { for (i = 1; i < NF; i++) if ($i ~ /^[0-9]+$/) add($i, $(i + 1)) }
    END {
      if (code && !failed) failed = 1
      if (!code && !seen) passed = 1
      print passed + 0, failed + 0, skipped + 0
    }' "$1"
}

# Prints the lines of a failed step's log that name the failure, and then its last lines.
failure_excerpt() {
  local dots='^[.sxFE]+ *\[ *[0-9]+%\]$'
  { grep -m 20 -E '^(FAILED|ERROR|Fatal Python error|test .* FAILED$|---- )' "$1" || true; }
  # These messages can stand behind the dots of other tests, and the tracebacks of all threads follow them.
  { grep -m 2 -A 60 -E 'Fatal Python error|Timeout \(' "$1" || true; }
  { grep -vE "$dots" "$1" || true; } | tail -n 60
}

# step NAME COMMAND...: runs a command with its output in its own log, and continues even if it fails.
step() {
  local name=$1 log code=0 began=$SECONDS verdict=ok counts
  shift
  log=$LOGS/$(printf '%s' "$name" | tr -cs 'A-Za-z0-9.' '-').log
  "$@" >"$log" 2>&1 </dev/null || code=$?
  read -ra counts < <(count "$log" "$code")
  [ "${counts[1]}" = 0 ] || verdict=FAILED
  {
    # Another step may run at the same time. The lock keeps the lines of each together.
    flock 8
    echo "$verdict ${counts[*]} $name" >&8
    if [ $verdict = ok ]; then
      printf 'ok      %4d s  %s%s\n' $((SECONDS - began)) "$name" "$([ "${counts[0]}" = 1 ] || echo ", ${counts[0]} tests")"
    else
      printf 'FAILED  %4d s  %s (exit code %s); the end of %s:\n' $((SECONDS - began)) "$name" "$code" "${log#"$ROOT"/}"
      failure_excerpt "$log" | sed 's/^/    /'
    fi
  } 8>>"$RESULTS"
}

# beside COMMAND...: runs a step, or a function that runs steps, in the background. At most two run there at a time: a
# further one waits for the end of another.
beside() {
  while [ "$(jobs -pr | wc -l)" -ge 2 ]; do wait -n || true; done
  "$@" &
  background+=($!)
}

# Waits until the steps in the background have ended. If a function ended early, the script ends.
join() {
  local each
  for each in "${background[@]}"; do wait "$each" || fail "steps in the background ended early"; done
  background=()
}

# Prints the failed steps and a summary. Fails if a step failed.
finish() {
  awk '
    { passed += $2; failed += $3; skipped += $4 }
    $1 == "FAILED" { bad = 1; sub(/^[^ ]+ [^ ]+ [^ ]+ [^ ]+ /, ""); print "failed: " $0 }
    END {
      printf "%d passed, %d failed%s\n", passed, failed, skipped ? ", " skipped " skipped" : ""
      exit bad
    }' "$RESULTS"
}

shell_scripts() {
  local scripts=()
  mapfile -t scripts < <(grep -lE -d skip '^#!/usr/bin/env bash|^# shellcheck shell=bash' ci/* .ci/run)
  "$lint/bin/shellcheck" -x -P ci "${scripts[@]}"
}

# Checks that the workflows are valid, have minimal permissions, and pin actions by their hash.
check_workflows() {
  "$lint/bin/check-jsonschema" --builtin-schema vendor.github-workflows .github/workflows/*.yml &&
    "$lint/bin/zizmor" --offline --no-progress --color never .github
}

clippy_core() { with_target core cargo clippy --locked --all-targets -- -D warnings; }

# clippy_extension NAME: lints the extension for an interpreter of REQUIRED_PYTHONS, for the free-threaded build of a
# version of COMPILE_ONLY_FREE_THREADED, or for a target with CPython 3.13. Without an interpreter PyO3 reads its
# settings from a file.
clippy_extension() {
  local name=$1 version=$1 target=() flags='' python sources variable
  if [[ " ${REQUIRED_PYTHONS[*]} " == *" $name "* ]]; then
    python=$("$ROOT/ci/python" "$name") || return
    variable=PYO3_PYTHON=$python
  else
    if [[ $name == *t ]]; then
      flags=Py_GIL_DISABLED
    else
      version=3.13 target=(--target "$name")
      if have rustup; then rustup -q target add "$name" || return; fi
    fi
    variable=PYO3_CONFIG_FILE=$ROOT/target/pyo3-$name.txt
    printf '%s\n' implementation=CPython "version=${version%t}" shared=true abi3=false pointer_width=64 "build_flags=$flags" \
      >"${variable#*=}"
  fi
  sources=$("$lint/bin/python" ci/source_folder.py "$version" "clippy-$name") || return
  with_target "clippy-$name" env -C "$sources" "$variable" cargo clippy --locked --features python "${target[@]}" -- -D warnings
}

# RUSTFLAGS of a user replace the flags that the extension needs. Checks that the build fails then, with a helpful
# message.
check_rustflags() {
  local python said
  python=$("$ROOT/ci/python" 3.13) || return
  if said=$(RUSTFLAGS="-C debuginfo=0" PYO3_PYTHON=$python with_target rustflags cargo check --locked --features python 2>&1) ||
    [[ $said != *"needs the flags \`--cfg pyo3_disable_reference_pool\`"* ]]; then
    echo "$said"
    return 1
  fi
}

clippy_models() {
  RUSTFLAGS="--cfg moka_loom" with_target loom cargo clippy --locked --test loom -- -D warnings
}

# A reference to code in a comment must be right, also in comments of private items.
document_core() { with_target core cargo rustdoc --locked -- --document-private-items -D warnings; }

# document_extension NAME: the same for the extension, for an interpreter whose versions of the crates are in Cargo.lock.
document_extension() {
  local python
  python=$("$ROOT/ci/python" "$1") || return
  PYO3_PYTHON=$python with_target "clippy-$1" cargo rustdoc --locked --features python -- --document-private-items -D warnings
}

test_core() { with_target core timeout --foreground -k 10 900 cargo test --locked --no-fail-fast; }

# Tests the core as it is on the GIL build, where the GIL is its lock.
test_core_gil() {
  RUSTFLAGS="--cfg moka_gil" with_target core-gil timeout --foreground -k 10 900 cargo test --locked --no-fail-fast
}

check_types() { "$lint/bin/python" -m mypy --strict moka_py tests/typing; }

check_pyright() {
  PYRIGHT_PYTHON_IGNORE_WARNINGS=1 "$lint/bin/python" -m pyright --pythonpath "$lint/bin/python" tests/typing
}

# The virtual environment of the tests for an interpreter.
environment() { echo "$ROOT/target/test-$1"; }

# install_wheel INTERPRETER WHEEL TOOLS: installs the wheel in a new environment, and links the environment TOOLS to it.
install_wheel() {
  local venv
  venv=$(environment "$1")
  fresh_venv "$venv" "$1" "$2" && link_tools "$venv" "$3"
}

# link_tools ENVIRONMENT TOOLS: makes the packages of the environment TOOLS importable in another one.
link_tools() {
  "$2/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    >"$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tools.pth"
}

# Imports the package in a virtual environment. Fails if there is a warning or the import changes the state of the GIL.
smoke() {
  (cd target && "$1/bin/python" -I -W error - <<'PY'
import sys, sysconfig
from collections.abc import MutableMapping
import moka_py

assert moka_py.__file__.startswith(sys.prefix), moka_py.__file__
free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
assert getattr(sys, "_is_gil_enabled", lambda: True)() is not free_threaded
cache = moka_py.Moka(2, ttl=60)
cache["key"] = "value"
assert dict(cache.items()) == {"key": "value"} and isinstance(cache, MutableMapping)
assert moka_py.cached()(len)("four") == 4
print(sys.version, moka_py.VERSION)
PY
  )
}

# test_wheel INTERPRETER WHEEL: installs the wheel and runs all tests, as steps.
test_wheel() {
  local interpreter=$1 wheel=$2 more=() tools
  [[ $interpreter == *t ]] || more=("${GIL_TEST_TOOLS[@]}")
  tools=$(tool_venv "$interpreter" "${TEST_TOOLS[@]}" "${more[@]}")
  step "install, $interpreter" install_wheel "$interpreter" "$wheel" "$tools"
  step "import, $interpreter" smoke "$(environment "$interpreter")"
  step "pytest, $interpreter" run_tests "$(environment "$interpreter")" 1500
}

# run_tests ENVIRONMENT SECONDS: runs the tests of the installed package with a time limit, except for those of the near
# cache and of the integrations.
run_tests() { run_pytest "$@" -n 2 tests/python --ignore tests/python/near --ignore tests/python/integrations; }

# run_pytest ENVIRONMENT SECONDS ARGUMENT... In the background of a script SIGINT is ignored, so env enables it.
run_pytest() {
  env --default-signal=INT timeout --foreground -s INT -k 30 "$2" "$1/bin/python" -P -m pytest -q --tb=short --import-mode=importlib \
    -c pyproject.toml --rootdir . -p no:cacheprovider "${@:3}"
}

# test_integrations INTERPRETER WHEEL [DJANGO]: tests the integrations, as a step, with the newest Django or another one.
# Many of the frameworks' tests sleep, so more run at a time than there are cores.
test_integrations() {
  local interpreter=$1 wheel=$2 django=${3:-$NEWEST_DJANGO} frameworks=("${INTEGRATION_TOOLS[@]}" "$REDIS_CLIENT")
  [[ $interpreter == *t ]] || frameworks+=("${GIL_INTEGRATION_TOOLS[@]}")
  step "integrations, $interpreter, $django" run_integrations "$interpreter" "$wheel" "$django" "${frameworks[@]}"
}

# run_integrations INTERPRETER WHEEL FRAMEWORK...
run_integrations() {
  local interpreter=$1 wheel=$2 tools suites server venv
  shift 2
  tools=$(tool_venv "$interpreter" "${TEST_TOOLS[@]}" "$@") && suites=$("$ROOT/ci/suites") &&
    server=$("$ROOT/ci/server" --program redis) || return
  venv=$ROOT/target/integrations-$interpreter
  fresh_venv "$venv" "$interpreter" "$wheel" && link_tools "$venv" "$tools" || return
  MOKA_PY_SUITES=$suites MOKA_PY_SERVER=$server run_pytest "$venv" 600 -n 4 tests/python/integrations
}

# test_near INTERPRETER WHEEL SERVER CLIENT [PROTOCOL]: tests the near cache with a server of ci/server, the packages of
# a client, and a version of the protocol, as a step.
test_near() {
  local interpreter=$1 wheel=$2 server=$3 client=$4 protocol=${5:-} packages tools
  read -ra packages <<<"$client"
  tools=$(tool_venv "$interpreter" "${TEST_TOOLS[@]}" "${packages[@]}")
  step "near cache, $interpreter, $server, $client${protocol:+, RESP$protocol}" \
    run_near_tests "$interpreter" "$wheel" "$tools" "$server" "${client%%=*}" "$protocol"
}

# run_near_tests INTERPRETER WHEEL TOOLS SERVER PACKAGE PROTOCOL
run_near_tests() (
  venv=$ROOT/target/near-$1
  fresh_venv "$venv" "$1" "$2" && link_tools "$venv" "$3" || exit
  MOKA_PY_SERVER=$("$ROOT/ci/server" --program "$4") || exit
  export MOKA_PY_SERVER MOKA_PY_CLIENT=$5
  if [ -n "$6" ]; then export MOKA_PY_PROTOCOL=$6; fi
  run_pytest "$venv" 900 -n 2 tests/python/near
)

lint_steps() {
  step "shell scripts" shell_scripts
  step "workflows" check_workflows
  step "rustfmt" cargo fmt --check -- --color never
  step "ruff check" "$lint/bin/ruff" check --output-format concise .
  step "ruff format" "$lint/bin/ruff" format --check .
  step "mutations apply" "$lint/bin/python" ci/mutations.py check
  step "mypy --strict" check_types
  step "pyright" check_pyright
}

core_steps() {
  step "clippy, core" clippy_core
  step "rustdoc, core" document_core
  step "cargo test, core" test_core
}

# Begins the steps that need neither a wheel nor an installed package.
quick_steps() {
  ensure_rust
  have cargo-fmt && have cargo-clippy || rustup component add rustfmt clippy >&2 || true
  lint=$(tool_venv 3.13 "${LINT_TOOLS[@]}")
  cd "$ROOT" || return
  step "clippy, extension" side_by_side clippy_extension "${REQUIRED_PYTHONS[@]}" "${COMPILE_ONLY_FREE_THREADED[@]/%/t}" "${TARGETS[@]}"
  step "rustdoc, extension" side_by_side document_extension 3.13t 3.14
  beside core_steps
  beside lint_steps
  beside step "cargo test, core as on the GIL build" test_core_gil
  beside step "foreign RUSTFLAGS fail the build" check_rustflags
  beside step "clippy, models" clippy_models
}
