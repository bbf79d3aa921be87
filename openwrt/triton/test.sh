#!/bin/sh
# The feed's CI runs this with the package's name and version after its installation.
# shellcheck disable=SC3043

fail() {
	echo "test.sh: $*" >&2
	exit 1
}

case "$1" in
triton) ;;
*) exit 0 ;;
esac

said="$(triton --version)" || fail "triton --version fails"
[ "$said" = "triton $2" ] || fail "triton --version says '$said', expected 'triton $2'"

folder="$(mktemp -d)" || exit 1
trap 'rm -rf "$folder"' EXIT

printf 'url = "wss://poseidon.example.com"\nstate = "%s"\n' "$folder" >"$folder/triton.toml"
triton check-config --config "$folder/triton.toml" >/dev/null || fail "a right configuration is refused"
printf 'url = "htps://x"\n' >"$folder/wrong.toml"
triton check-config --config "$folder/wrong.toml" 2>/dev/null && fail "a wrong configuration is accepted"

# It runs on this processor, and makes its identifier.
identifier="$(triton --config "$folder/triton.toml" identifier)" || fail "triton identifier fails"
[ "${#identifier}" = 64 ] || fail "the identifier has ${#identifier} characters, expected 64"

exit 0
