# Stand-in for OpenWrt's /lib/functions.sh: only what the package uses, with the same results for the same files.
# shellcheck shell=dash

P=/procd

violation() { # TEXT
	echo "$*" >>"$P/violations"
}

config_load() { # PACKAGE
	local exported name
	for name in $CONFIG_NAMES; do unset "$name"; done
	CONFIG_NAMES=
	CONFIG_SECTION=
	exported="$(uci -q export "$1")" || return 1
	eval "$exported"
}

config_put() { # NAME VALUE
	CONFIG_NAMES="$CONFIG_NAMES $1"
	eval "$1=\"\$2\""
}

package() { :; }

config() { # TYPE NAME
	CONFIG_SECTION="${2:-cfg1}"
	config_put "CONFIG_${CONFIG_SECTION}_TYPE" "$1"
}

option() { # NAME VALUE
	config_put "CONFIG_${CONFIG_SECTION}_$1" "$2"
}

# A list is also an option with its items in one line.
list() { # NAME VALUE
	local length joined
	eval "length=\"\${CONFIG_${CONFIG_SECTION}_$1_LENGTH:-0}\" joined=\"\$CONFIG_${CONFIG_SECTION}_$1\""
	length=$((length + 1))
	config_put "CONFIG_${CONFIG_SECTION}_$1_ITEM$length" "$2"
	config_put "CONFIG_${CONFIG_SECTION}_$1_LENGTH" "$length"
	config_put "CONFIG_${CONFIG_SECTION}_$1" "${joined:+$joined }$2"
}

config_get() { # VARIABLE SECTION OPTION [DEFAULT]
	[ $# -ge 3 ] || violation "config_get $*"
	eval "$1=\"\${CONFIG_$2_$3:-\$4}\""
}

config_list_foreach() { # SECTION OPTION FUNCTION [ARG...]
	local section="$1" name="$2" called="$3" val len c=1
	shift 3
	config_get len "$section" "${name}_LENGTH"
	[ -n "$len" ] || return 0
	while [ "$c" -le "$len" ]; do
		config_get val "$section" "${name}_ITEM$c"
		"$called" "$val" "$@"
		c=$((c + 1))
	done
}

# What opkg's postinst does: run the package's uci-defaults, enable, start.
default_postinst() {
	local file info=/usr/lib/opkg/info/triton.list
	if [ -e /lib/apk/packages/triton.list ]; then info=/lib/apk/packages/triton.list; fi
	for file in $(grep '^/etc/uci-defaults/' "$info"); do
		[ -f "$file" ] || continue
		# shellcheck disable=SC1090
		(cd /etc/uci-defaults && . "$file") && rm -f "$file"
	done
	if [ -f /usr/lib/opkg/info/triton.postinst-pkg ]; then
		# shellcheck disable=SC1091
		(. /usr/lib/opkg/info/triton.postinst-pkg)
	fi
	for file in $(grep '^/etc/init.d/' "$info"); do
		"$file" enable
		"$file" start
	done
}

default_prerm() {
	/etc/init.d/triton disable
	/etc/init.d/triton stop
}
