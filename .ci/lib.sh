# shellcheck shell=bash
# What the scripts in .ci share: headlines, bounded apt calls, "skip with a reason or fail in CI", cross compiling.
# Sourced, never run.
#
# Environment:
#   CI                      "true" makes a part that cannot be installed a failure instead of a skip
#   LASTGASP_TARGET_DIR     where cargo builds (default: lastgasp-target in the user's cache directory)
#   LASTGASP_NO_RUSTUP      "1" takes no cross target from rustup, so that the way by Debian's rustc can be tested

set -euo pipefail

# Builds outlive the clone they were made from, so that a fresh clone does not begin from nothing.
CARGO_TARGET_DIR="${LASTGASP_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/lastgasp-target}"
export CARGO_TARGET_DIR
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"

# Seconds since the first script of this run started.
elapsed() { echo "$SECONDS"; }

# Prints a headline with the seconds since the start.
headline() { printf '\n==> [%4ds] %s\n' "$(elapsed)" "$*"; }

# Prints to standard error what is wrong and what to do, and ends the script.
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# A part that this machine cannot have: a failure in CI, a printed reason elsewhere (status 2 = skipped).
skip_or_fail() {
    if [ "${CI:-}" = true ]; then
        printf 'error: %s (in CI nothing may be skipped)\n' "$*" >&2
        exit 1
    fi
    printf 'skipped: %s\n' "$*" >&2
    exit 2
}

# Runs a command up to three times with a pause between; each try may take at most $1 seconds.
retry() {
    local limit=$1 try
    shift
    for try in 1 2 3; do
        timeout --kill-after=10 "$limit" "$@" && return 0
        printf 'try %d of 3 failed: %s\n' "$try" "$*" >&2
        [ "$try" = 3 ] || sleep $((try * 3))
    done
    return 1
}

# True if packages can be installed here: Debian's tools, and root.
can_apt() { command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; }

# apt-get with a lock timeout, no questions and no translations.
apt_get() {
    DEBIAN_FRONTEND=noninteractive retry 600 apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Languages=none \
        -o Acquire::Retries=2 "$@"
}

# True if rustc of the active toolchain has a standard library for target $1, and may be used for it.
has_rust_target() {
    [ "${LASTGASP_NO_RUSTUP:-}" != 1 ] && [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]
}

# Debian's rustc, of a package that also ships the sources of the standard library.
DEBIAN_RUSTC=/usr/bin/rustc

# True if Debian's rustc can build the standard library for any target from its sources.
has_debian_rust() {
    [ -x "$DEBIAN_RUSTC" ] && [ -d "$("$DEBIAN_RUSTC" --print sysroot)/lib/rustlib/src/rust/library/core" ]
}

# cross_cargo TARGET SUBCOMMAND ARGS...: cargo for TARGET, by the active toolchain if it has the target, else by
# Debian's rustc, which then builds the standard library itself. Run install-cross first.
cross_cargo() {
    local target=$1 subcommand=$2
    shift 2
    local settings=(CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc) std=core
    if has_rust_target "$target"; then
        env "${settings[@]}" cargo "$subcommand" --target "$target" "$@"
        return
    fi
    has_debian_rust || die "no compiler for $target here; run .ci/install-cross $target"
    case $target in
        *-linux-*) std=std,panic_abort,panic_unwind ;;
        # rust-lld comes with rustup's toolchains only; Debian's lld has the same options.
        *) settings+=("CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$target")_LINKER=ld.lld") ;;
    esac
    # Two compilers of different versions must not share a directory: each would rebuild what the other made.
    settings+=(RUSTC="$DEBIAN_RUSTC" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$CARGO_TARGET_DIR/debian-rustc")
    env "${settings[@]}" cargo "$subcommand" -Zbuild-std="$std" --target "$target" "$@"
}

# cross_target_dir TARGET: where cross_cargo leaves what it built for TARGET.
cross_target_dir() {
    if has_rust_target "$1"; then
        echo "$CARGO_TARGET_DIR/$1"
    else
        echo "$CARGO_TARGET_DIR/debian-rustc/$1"
    fi
}
