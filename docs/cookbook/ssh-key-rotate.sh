#!/bin/sh
# Puts a new SSH key in the place of an old one in a user's authorized keys. Other keys stay.
# Usage: ssh-key-rotate.sh USER
# Needs: root or the user itself; two values that the operator gave to this device:
#     poseidon data put NAME ssh/new-key new.pub
#     poseidon data put NAME ssh/old-key old.pub      (leave it out to add the new one only)
# Run it twice: first without ssh/old-key, then log in with the new key, then give ssh/old-key and run it again.
set -eu
umask 077

user=${1:-}
case $user in '' | -* | *[!A-Za-z0-9._-]*) echo "usage: ssh-key-rotate.sh USER" >&2; exit 2 ;; esac
home=$(awk -F: -v user="$user" '$1 == user { print $6 }' /etc/passwd)
[ -n "$home" ] || { echo "there is no user '$user'" >&2; exit 1; }
# Dropbear on OpenWrt has root's keys elsewhere.
if [ "$user" = root ] && [ -d /etc/dropbear ]; then
    file=/etc/dropbear/authorized_keys
else
    file=$home/.ssh/authorized_keys
fi

# key NAME: type and key of what the operator gave under that name; comments may differ.
key() {
    awk 'NF >= 2 && $1 ~ /^(ssh|ecdsa|sk)-/ && $2 ~ /^[A-Za-z0-9+\/=]+$/ { print $1 " " $2; found++ }
         END { exit found == 1 ? 0 : 1 }' || { echo "$1 is no public key on one line" >&2; return 1; }
}
given=$(triton get ssh/new-key)
new=$(printf '%s\n' "$given" | key ssh/new-key)
old=
if given_old=$(triton get ssh/old-key 2>/dev/null); then old=$(printf '%s\n' "$given_old" | key ssh/old-key); fi
[ "$new" != "$old" ] || { echo "ssh/new-key and ssh/old-key are the same" >&2; exit 1; }

folder=${file%/*}
mkdir -p "$folder"
touch "$file"
temporary=$file.triton-$$
trap 'rm -f "$temporary"' EXIT
# Without the old key, and without the new one where it is there already; options before a key go with it.
awk -v old="$old" -v new="$new" 'old != "" && index($0, old) { next } index($0, new) { next } { print }' "$file" >"$temporary"
printf '%s\n' "$given" >>"$temporary"
chown "$user:" "$temporary" "$folder" 2>/dev/null || chown "$user" "$temporary" "$folder"
chmod 600 "$temporary"
sync
mv "$temporary" "$file"
echo "$(grep -c . "$file") keys in $file"
