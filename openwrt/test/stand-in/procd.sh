# Stand-in for procd and its shell functions: runs one instance, and restarts it where the real one does: when its
# command or the content of its files has changed. What happens is written down in /procd for the tests. What it does
# not know is a violation.
# shellcheck shell=dash

NEW="$P/new"
INSTANCE="$NEW/instance"

did() { # TEXT
	echo "$*" >>"$P/actions"
}

alive() {
	local pid
	[ -f "$P/pid" ] || return 1
	read -r pid <"$P/pid"
	# A zombie is not alive.
	grep -q '^State:.[RSD]' "/proc/$pid/status" 2>/dev/null
}

procd_open_service() { # NAME SCRIPT
	rm -rf "$NEW"
	mkdir -p "$NEW"
	[ "$1" = triton ] || violation "service $1"
}

procd_open_instance() {
	[ ! -d "$INSTANCE" ] || violation "a second instance"
	mkdir -p "$INSTANCE"
}

procd_set_param() { # TYPE VALUE...
	local type="$1"
	shift
	[ -d "$INSTANCE" ] || violation "procd_set_param $type outside of an instance"
	case "$type" in
	command | file | respawn) for value in "$@"; do printf '%s\n' "$value"; done >"$INSTANCE/$type" ;;
	stdout | stderr) printf '%s\n' "$1" >"$INSTANCE/$type" ;;
	*) violation "procd_set_param $type" ;;
	esac
}

procd_close_instance() {
	[ -s "$INSTANCE/command" ] || violation "an instance without a command"
}

procd_add_reload_trigger() { # PACKAGE...
	for package in "$@"; do echo "config.change $package /etc/init.d/triton reload" >>"$NEW/triggers"; done
}

procd_add_interface_trigger() { # EVENT INTERFACE COMMAND...
	echo "$*" >>"$NEW/triggers"
}

json_add_string() { echo "$1=$2" >>"$NEW/validate"; }
json_add_object() { :; }
json_close_object() { :; }

procd_add_validation() { # FUNCTION
	"$@"
}

stop_instance() {
	local pid tries=0
	alive || return 0
	read -r pid <"$P/pid"
	kill -TERM "$pid"
	while alive && [ "$tries" -lt 50 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
	alive && violation "not stopped by TERM within 5 s" && kill -KILL "$pid"
	rm -f "$P/pid"
}

start_instance() {
	local line
	set --
	while IFS= read -r line; do set -- "$@" "$line"; done <"$INSTANCE/command"
	# As procd: its own environment, not that of the caller.
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@" </dev/null >/dev/null 2>>"$P/stderr" &
	echo $! >"$P/pid"
}

procd_close_service() {
	local files
	service_triggers
	if [ ! -d "$INSTANCE" ]; then
		if alive; then did stop; else did nothing; fi
		stop_instance
		rm -f "$P/signature"
		return 0
	fi
	files="$(cat "$INSTANCE/file" 2>/dev/null)"
	{
		cat "$INSTANCE/command"
		# shellcheck disable=SC2086
		md5sum $files
	} >"$NEW/signature"
	if ! alive; then
		did start
		start_instance
	elif [ "$(cat "$NEW/signature")" = "$(cat "$P/signature")" ]; then
		did unchanged
	else
		did restart
		stop_instance
		start_instance
	fi
	cp "$NEW/signature" "$P/signature"
}

procd_send_signal() { # SERVICE INSTANCE SIGNAL
	local pid
	alive || return 1
	did "signal $3"
	read -r pid <"$P/pid"
	kill -s "$3" "$pid"
}

uci_validate_section() { # PACKAGE TYPE NAME TUPLE...
	local _result _error
	_result="$(/sbin/validate_data "$@" 2>/dev/null)"
	_error=$?
	eval "$_result"
	[ "$_error" = 0 ] || /sbin/validate_data "$@" >/dev/null
	return "$_error"
}

uci_load_validate() { # PACKAGE TYPE NAME FUNCTION TUPLE...
	local _package="$1" _type="$2" _name="$3" _function="$4" _option _result
	shift 4
	for _option in "$@"; do eval "local ${_option%%:*}"; done
	uci_validate_section "$_package" "$_type" "$_name" "$@"
	_result=$?
	[ -n "$_function" ] || return "$_result"
	eval "$_function \"\$_name\" \"\$_result\""
}
