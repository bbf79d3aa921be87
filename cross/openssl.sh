# shellcheck shell=bash disable=SC2154
# A small OpenSSL for --tls native: TLS 1.2 and 1.3 of a client, and what today's servers ask of one. Built once for each
# target into the cache. Its source is the crate openssl-src, at the version and checksum of Cargo.lock.

# What the agent does not use. What must stay is tested by tests/tls_program.rs: ECDSA, RSA and Ed25519 certificates,
# AES-GCM and ChaCha20-Poly1305, X25519, P-256 and P-384.
openssl_options=(
    # One static library; nothing is loaded or configured at run time.
    no-shared no-dso no-module no-pinshared no-engine no-legacy no-autoload-config no-tests no-apps no-docs no-makedepend
    # Other protocols and formats.
    no-ssl3 no-tls1 no-tls1_1 no-dtls no-quic no-sctp no-srp no-srtp no-psk no-nextprotoneg no-comp no-http no-ocsp no-ct
    no-cms no-ts no-cmp no-rfc3779
    # Other ciphers, digests and curves.
    no-aria no-bf no-blake2 no-camellia no-cast no-des no-dsa no-ec2m no-gost no-idea no-lms no-md4 no-mdc2 no-ml-dsa
    no-ml-kem no-ocb no-rc2 no-rc4 no-rmd160 no-scrypt no-argon2 no-seed no-siphash no-siv no-slh-dsa no-sm2 no-sm3 no-sm4
    no-whirlpool
    # What costs memory or code for speed, people or debuggers: the texts of errors, caches, assembly for each processor.
    no-err no-filenames no-cached-fetch no-asm no-async no-thread-pool no-default-thread-pool no-multiblock no-ui-console
    no-sock no-ssl-trace no-secure-memory no-egd no-rdrand no-afalgeng no-padlockeng
)

# Sets $openssl_folder for the target of the table.
need_openssl() {
    local manifest source work key
    manifest=$(cd "$checkout" && "$cargo" metadata --locked --format-version 1 --filter-platform "$triple" \
        --features tls-vendored | python3 -c 'import json, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == "openssl-src":
        print(package["manifest_path"])')
    [ -n "$manifest" ] || fail "Cargo.lock has no openssl-src"
    source=$(dirname "$manifest")/openssl
    key=$(basename "$(dirname "$manifest")")-$(hash "$cross/openssl.sh" "$cross/cc" "$cross/requirements.txt")
    openssl_folder=$cache/$key/$triple
    [ ! -e "$openssl_folder/complete" ] || return 0
    say "building OpenSSL for $triple from $(basename "$(dirname "$manifest")"), some minutes"
    work=$(mktemp -d)
    (
        cd "$work"
        export TRITON_CROSS_TARGET=$zig TRITON_CROSS_CPU=$cpu SOURCE_DATE_EPOCH=0
        local position=-fno-pic
        [ "$pie" = fixed ] || position=-fPIC
        # /etc/ssl/cert.pem and /etc/ssl/certs are where Debian and OpenWrt keep authorities.
        perl "$source/Configure" "$openssl" "${openssl_options[@]}" --prefix=/usr --libdir=lib --openssldir=/etc/ssl \
            CC="$cross/cc" AR="$cross/ar" RANLIB=true \
            CFLAGS="-Os -ffunction-sections -fdata-sections $position -ffile-prefix-map=$source=/openssl" &&
            make -j"$(nproc)" build_libs
    ) >"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; fail "OpenSSL cannot be built for $triple; all of it is in $work/log"; }
    rm -rf "$openssl_folder"
    mkdir -p "$openssl_folder/lib" "$openssl_folder/include"
    cp "$work/libssl.a" "$work/libcrypto.a" "$openssl_folder/lib/"
    # Made and given headers, in this order: some are both.
    cp -r "$source/include/openssl" "$openssl_folder/include/"
    cp -r "$work/include/openssl" "$openssl_folder/include/"
    touch "$openssl_folder/complete"
    rm -rf "$work"
}
