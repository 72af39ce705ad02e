# shellcheck shell=bash
# Functions that unpack Debian's packages of another suite into a folder, without a change to the system. Sourced after
# ci/lib.sh.

# Prints the archive of this machine's Debian packages.
debian_archive() {
  [ -z "${DEBIAN_ARCHIVE:-}" ] || { echo "$DEBIAN_ARCHIVE"; return; }
  # shellcheck disable=SC2016
  apt-get indextargets --no-release-info --format '$(REPO_URI)' | awk '/\/debian\/?$/ { found = $0 } END { print found; exit !found }'
}

# use_suite WORK SUITE TYPE: makes `apt` and `apt_cache` use only that suite of Debian's archive, with their own
# lists, so that the lists of the system stay unchanged. The packages of the system count as not installed. (Release
# files of a stored archive may have expired.)
use_suite() {
  local work=$1 suite=$2 kind=$3 archive
  archive=$(debian_archive) || { say "apt's lists name no Debian archive; set DEBIAN_ARCHIVE to the address of one"; return 1; }
  rm -rf "$work"
  mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/source"
  : >"$work/status"
  echo "$kind [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $suite main" >"$work/suite.list"
  apt_options=(-qq -o "Dir::Etc::SourceList=$work/suite.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$work/lists" -o "Dir::State::status=$work/status" -o "Dir::Cache=$work"
    -o "APT::Sandbox::User=$(id -un)" -o Acquire::Check-Valid-Until=false -o APT::Install-Recommends=false)
  apt update >&2
}
apt() { apt-get "${apt_options[@]}" "$@"; }
apt_cache() { apt-cache "${apt_options[@]}" "$@"; }

# unpack_packages WORK PACKAGE...: unpacks binary packages of the suite, with all packages that they need, into
# WORK/source.
unpack_packages() {
  local work=$1 package
  shift
  apt install --download-only -y "$@" >&2 || return
  for package in "$work"/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$work/source" || return
  done
}

# use_own_libraries SOURCE PREFIX PROGRAM: makes the program in the unpacked folder SOURCE use the loader and the
# libraries that will be in PREFIX. So it runs there without a chroot.
use_own_libraries() {
  local source=$1 prefix=$2 program=$3 loader
  loader=$(cd "$source" && find usr/lib* lib* -name 'ld-linux*' 2>/dev/null | head -n 1)
  patchelf --set-interpreter "$prefix/$loader" --force-rpath \
    --set-rpath "$(cd "$source" && find usr/lib lib -maxdepth 1 -name '*-linux-gnu*' 2>/dev/null | sed "s,^,$prefix/," | paste -sd:)" \
    "$source/$program"
}
