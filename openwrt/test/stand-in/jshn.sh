# Stand-in for libubox's jshn.sh: flat objects, which is all that the plugin uses.
# shellcheck shell=dash

json_init() { JSON=; }

json_quote() { # VALUE
	printf '%s' "$1" | awk '
		BEGIN { for (i = 1; i < 32; i++) code[sprintf("%c", i)] = sprintf("\\u%04x", i); code["\""] = "\\\""; code["\\"] = "\\\\" }
		{ line = ""; for (i = 1; i <= length($0); i++) { c = substr($0, i, 1); line = line ((c in code) ? code[c] : c) }
		  printf "%s%s", (NR > 1 ? "\\n" : ""), line }'
}

json_add_string() { JSON="$JSON${JSON:+, }\"$1\": \"$(json_quote "$2")\""; }
json_add_boolean() { JSON="$JSON${JSON:+, }\"$1\": $([ "$2" = 1 ] && echo true || echo false)"; }
json_dump() { echo "{ $JSON }"; }

json_load() { # TEXT
	JSON_IN="$1"
}

json_get_var() { # VARIABLE NAME [DEFAULT]
	local found
	found="$(printf '%s' "$JSON_IN" | sed -n "s/.*\"$2\" *: *\"\\{0,1\\}\\([^\",}]*\\).*/\\1/p")"
	eval "$1=\"\${found:-\$3}\""
}
