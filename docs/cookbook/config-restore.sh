#!/bin/sh
# Restores a configuration folder from an archive of config-backup.sh; what was there before is kept beside it.
# Usage: config-restore.sh [FILE [FOLDER]]     /tmp/config-backup.tar.gz and /etc/config unless given
# Needs: the archive on the device ('poseidon push FILE NAME:/tmp/'), tar and gzip, root, room for a second copy.
# On OpenWrt the changed services are reloaded with reload_config: where the network changes, the connection may break and come back.
set -eu
umask 077

file=${1:-/tmp/config-backup.tar.gz} folder=${2:-/etc/config}
folder=${folder%/}
case $folder in /*/*) ;; *) echo "FOLDER is an absolute path below a folder, such as /etc/config" >&2; exit 2 ;; esac
[ -f "$file" ] || { echo "there is no $file: poseidon push ARCHIVE NAME:$file" >&2; exit 1; }
new=$folder.new-$$ before=$folder.before
trap 'rm -rf "$new"' EXIT

# Nothing but files and folders, and nothing outside.
tar -tzf "$file" >/dev/null || { echo "$file is no whole archive of tar and gzip: refused" >&2; exit 1; }
if tar -tzf "$file" | grep -Eq '^/|(^|/)\.\.(/|$)'; then
    echo "$file has paths that lead out of the folder: refused" >&2
    exit 1
fi
mkdir "$new"
tar -C "$new" -xzf "$file" || { echo "$file cannot be unpacked: nothing was changed" >&2; exit 1; }
if find "$new" ! -type f ! -type d | grep -q .; then
    echo "$file holds links or devices: refused" >&2
    exit 1
fi
chmod 755 "$new"
sync
rm -rf "$before"
if [ -d "$folder" ]; then mv "$folder" "$before"; fi
# Between these two the folder is missing; if the device dies here, move $before back by hand.
mv "$new" "$folder"
sync
echo "restored $folder; what was there is in $before"
if command -v reload_config >/dev/null; then reload_config; fi
