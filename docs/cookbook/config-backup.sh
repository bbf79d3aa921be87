#!/bin/sh
# Writes an archive of a configuration folder, to be fetched with 'poseidon pull'.
# Usage: config-backup.sh [FILE [FOLDER]]     /tmp/config-backup.tar.gz and /etc/config unless given
# Needs: tar and gzip (busybox has both), root where the folder is root's. The archive holds the passwords and keys of that folder: it is
# readable by its owner only, and in memory where /tmp is.
set -eu
umask 077

file=${1:-/tmp/config-backup.tar.gz} folder=${2:-/etc/config}
[ -d "$folder" ] || { echo "there is no folder $folder" >&2; exit 1; }
trap 'rm -f "$file.new"' EXIT
tar -C "$folder" -czf "$file.new" .
# What cannot be read back is no backup.
gzip -t "$file.new"
mv "$file.new" "$file"
if command -v sha256sum >/dev/null; then sha256sum "$file"; fi
echo "fetch it with: poseidon pull NAME:$file"
