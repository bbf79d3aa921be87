#!/usr/bin/env bash
# sysroot.sh ZIG-TARGET CPU pie|fixed FOLDER: what a static binary starts with and ends in, built by zig from its own sources.
#
# zig builds musl and the compiler's helpers when it first links a program, and keeps them in its cache under names that
# only it knows. So it is asked to link an empty program and to say what it took; that is copied.
set -euo pipefail
cross=$(cd "$(dirname "$0")" && pwd)
zig=$1 cpu=$2 pie=$3 folder=$4
say() { printf 'sysroot.sh: %s\n' "$*" >&2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say "building the C library of $zig ($cpu), some 30 seconds"
echo 'int main(void) { return 0; }' >"$work/empty.c"
position=()
[ "$pie" = fixed ] || position=(-fPIE -pie)
cd "$work"
"$TRITON_CROSS_ZIG" -m ziglang cc -target "$zig" "-mcpu=$cpu" -Os -g0 -fno-sanitize=all -static "${position[@]}" \
    empty.c -o empty --verbose >log 2>&1 || { cat log >&2; say "zig cannot link for $zig"; exit 1; }
mkdir -p "$folder"
# The last call of the linker is that of the program.
grep 'ld\.lld' log | tail -n 1 | tr ' ' '\n' | grep -E '/(r?crt1\.o|lib[a-z_]+\.a)$' >taken
while read -r file; do
    case $(basename "$file") in
        # rcrt1.o relocates itself: what a position-independent static program starts with.
        crt1.o | rcrt1.o) cp "$file" "$folder/start.o" ;;
        libc.a | libzigc.a | libcompiler_rt.a) cp "$file" "$folder/" ;;
    esac
done <taken
for file in start.o libc.a libzigc.a libcompiler_rt.a; do
    [ -s "$folder/$file" ] || { cat log >&2; say "zig did not say where its $file is"; exit 1; }
done
"$TRITON_CROSS_ZIG" -m ziglang cc -target "$zig" "-mcpu=$cpu" -Os -g0 -fno-sanitize=all -ffunction-sections \
    -Wno-builtin-requires-header -c "$cross/shim.c" -o shim.o
"$TRITON_CROSS_ZIG" -m ziglang ar crsD "$folder/libunwind.a" shim.o
cp "$folder/libunwind.a" "$folder/libatomic.a"
# Asked for by name, and not needed: what they have is in the others.
for file in libgcc_eh.a libpthread.a libdl.a libm.a; do
    printf '!<arch>\n' >"$folder/$file"
done
touch "$folder/complete"
