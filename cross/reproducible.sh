#!/usr/bin/env bash
# reproducible.sh [OPTION-OF-build.sh…] TARGET…: builds what is tracked here twice, in two folders, and compares.
set -euo pipefail
# shellcheck source=cross/common.sh
. "$(dirname "$0")/common.sh"
[ $# -gt 0 ] || fail "which target? The arguments are those of build.sh"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# Folders whose names differ in length as well: a path in the binary would move what follows it.
for copy in one another/of-them; do
    mkdir -p "$folder/$copy/checkout"
    (cd "$checkout" && git ls-files -z | tar --null --files-from=- --create) | tar -x -C "$folder/$copy/checkout"
    CARGO_TARGET_DIR=$folder/$copy/built "$folder/$copy/checkout/cross/build.sh" "$@"
done
differ=0 compared=0
# small, or small-native or small-plain with --tls.
for first in "$folder"/one/built/*/small*/triton; do
    [ -e "$first" ] || continue
    compared=$((compared + 1))
    which=${first#"$folder"/one/built/}
    which=${which%/triton}
    if cmp "$first" "$folder/another/of-them/built/$which/triton"; then
        say "$which: the same $(stat -c %s "$first") bytes, sha256 $(sha256sum <"$first" | cut -d ' ' -f 1)"
    else
        differ=1
    fi
done
[ "$compared" -gt 0 ] || fail "build.sh has left no small*/triton in $folder/one/built: nothing was compared"
exit "$differ"
