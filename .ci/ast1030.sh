# shellcheck shell=bash
# Runs ast1030-evb firmware under QEMU on an image of its flash chip. Sourced after lib.sh, never run.

set -euo pipefail

# The target the firmware is built for.
AST1030_TARGET=thumbv7em-none-eabihf

# ast1030_build BIN: builds the firmware binary and prints the path of its ELF.
ast1030_build() {
    (cd boards/ast1030-evb && cross_cargo "$AST1030_TARGET" build --release --locked --quiet --bin "$1" >&2) ||
        die "could not build the firmware $1"
    echo "$(cross_target_dir "$AST1030_TARGET")/release/$1"
}

# ast1030_blank_nor FILE: a W25Q80 as it leaves the factory, 1 MiB of erased cells.
ast1030_blank_nor() { head -c 1048576 /dev/zero | tr '\0' '\377' >"$1"; }

# ast1030_command ELF NOR UART: sets AST1030_COMMAND to the call of QEMU. NOR, the chip, outlives the run; the console
# goes to the file UART byte by byte, so that what it holds after a cut is what the firmware had sent.
ast1030_command() {
    # shellcheck disable=SC2034  # for the script that sources this
    AST1030_COMMAND=(qemu-system-arm -accel tcg -M ast1030-evb -drive "file=$2,format=raw,if=mtd" -display none
        -monitor none -serial "file:$3" -semihosting-config "enable=on,target=native" -kernel "$1")
}
