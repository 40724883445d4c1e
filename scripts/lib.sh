# shellcheck shell=bash
# What the scripts share. Sourced, never run.

# Words for the person at the terminal go to standard error: standard output is the result.
say() { printf '%s\n' "$*" >&2; }
fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

have() { command -v "$1" >/dev/null 2>&1; }

# Rust installed by rustup is not on the path of a shell that was open before.
add_cargo_to_path() {
    if ! have cargo && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
        export PATH
    fi
}

target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$root/target}"; }

# Where downloaded tools are kept between checkouts.
cache_dir() { printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/orderflow"; }
