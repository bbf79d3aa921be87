#!/bin/sh
# What features and dependencies cost in the small program, in kilobytes.
#
#   bench/costs.sh          builds it for this machine with each choice of TLS, and takes the one with rustls apart
#   bench/costs.sh FILE     takes FILE apart, a program with symbols for any processor
#
# "own" is code whose path begins in the crate; "with generics" adds what other crates' generic code came to for its
# types, so columns overlap and their sums mean nothing. What a router gets is smaller: see cross/ and docs/size.md.
set -eu

need() {
    command -v "$1" >/dev/null || { echo "costs.sh: $1 is missing: $2" >&2; exit 1; }
}

# Debian's nm knows only its own processor; LLVM's knows all.
nm="nm"
for other in llvm-nm llvm-nm-22 llvm-nm-19 llvm-nm-14; do
    if command -v "$other" >/dev/null; then nm=$other; break; fi
done
need "$nm" "install binutils or llvm"

apart() {
    "$nm" --print-size --size-sort --demangle "$1" | awk '
        function hex(text,   n, i) {
            n = 0
            for (i = 1; i <= length(text); i++) n = n * 16 + index("0123456789abcdef", substr(text, i, 1)) - 1
            return n
        }
        # Code only; data mostly has no symbols.
        $3 !~ /^[tTwW]$/ { next }
        {
            size = hex(tolower($2))
            total += size
            name = $0
            sub(/^[^ ]+ [^ ]+ [^ ]+ /, "", name)
            gsub(/\[[0-9a-f]+\]/, "", name)
            # How the older way to write names in rustc comes out of a demangler for C++.
            gsub(/_\$LT\$|\$LT\$/, "<", name); gsub(/\$GT\$/, ">", name); gsub(/\$u20\$/, " ", name)
            gsub(/\$RF\$/, "\\&", name); gsub(/\$C\$/, ",", name); gsub(/\.\./, "::", name)
            # A name in C has no path.
            if (name !~ /::/) { own["(C: musl, ring)"] += size; next }
            first = name
            while (sub(/^([<&*(\[]+|(mut|dyn|const) )/, "", first)) {}
            # <T as trait> of a type of the standard library counts for the crate of the trait.
            if (first ~ /^(core|alloc|std|u8|u16|u32|u64|i64|f64|str|bool|\(\))[: \]>]/ && match(name, / as [a-z_0-9]+::/))
                first = substr(name, RSTART + 4, RLENGTH - 4)
            sub(/[^a-z_0-9].*/, "", first)
            if (first ~ /^([iuf][0-9]+|usize|bool|str|char|)$/) first = "core"
            own[first] += size
            delete seen
            while (match(name, /[a-z_][a-z_0-9]*::/)) {
                crate = substr(name, RSTART, RLENGTH - 2)
                # Only the beginning of a path is a crate.
                before = RSTART > 1 ? substr(name, RSTART - 1, 1) : " "
                if (before != ":" && !(crate in seen)) { seen[crate] = 1; all[crate] += size }
                name = substr(name, RSTART + RLENGTH)
            }
        }
        END {
            for (crate in own) if (own[crate] >= 1000)
                printf "%8.1f %14.1f  %s\n", own[crate] / 1000, (crate in all ? all[crate] : own[crate]) / 1000, crate
            printf "%8.1f %14s  all code\n", total / 1000, ""
        }' | sort -rn | { printf '%8s %14s  %s\n' own "with generics" "crate (kB)"; cat; }
}

if [ $# -gt 0 ]; then
    [ -r "$1" ] || { echo "costs.sh: $1 cannot be read" >&2; exit 1; }
    apart "$1"
    exit
fi

cd "$(dirname "$0")/.."
need cargo "install Rust (rustup.rs, or Debian's rustc and cargo)"
target=${CARGO_TARGET_DIR:-target}
kept=$(mktemp)
trap 'rm -f "$kept"' EXIT
printf '%-12s %10s %10s\n' features bytes more
before=0
for features in full full,tls full,rustls; do
    cargo build --quiet --locked --bin triton --profile small --config profile.small.strip=false \
        --no-default-features --features "$features"
    cp "$target/small/triton" "$kept"
    strip -s "$kept"
    size=$(wc -c <"$kept")
    [ "$features" != full ] || before=$size
    printf '%-12s %10d %+10d\n' "$features" "$size" $((size - before))
done
echo
apart "$target/small/triton"
