# Sourced by the scripts beside it: takes their words apart, refuses wrong ones before anything is called, and runs a
# command or prints it. It also runs in bash 3.2, which macOS has.
# shellcheck shell=bash
#
# Before `parse "$@"` a script sets usage (what --help prints), values and switches (the names of its flags, in one
# text each) and leading: how many words come before what is taken as it is, flags and all, such as a command.
# --some-key=VALUE sets some_key, a switch sets its name to yes, other words are in the array words.

note() { printf '%s\n' "$*" >&2; }
refuse() { printf 'error: %s\n' "$*" >&2; exit 2; }
stop() { printf 'error: %s\n' "$*" >&2; exit 1; }

# is_in WORD LIST: whether it is one of the words of the list.
is_in() { case " $2 " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

# matches TEXT PATTERN: an extended regular expression for the whole text, in which [a-z] are the ASCII letters.
matches() {
  local LC_ALL=C
  [[ "$1" =~ ^($2)$ ]]
}

# is_count TEXT: a whole number above zero, of a size that a shell can count with.
is_count() { matches "$1" '[1-9][0-9]{0,8}'; }

# shellcheck disable=SC2086  # lists of words
parse() {
  local word flag key value
  switches="$switches dry-run"
  for key in $values $switches; do
    key="${key//-/_}"
    [ -n "${!key+set}" ] || printf -v "$key" ''
  done
  words=()
  while [ $# -gt 0 ]; do
    word="$1"; shift
    flag="${word%%=*}"; flag="${flag#--}"; key="${flag//-/_}"
    case "$word" in
      -h | --help) printf '%s\n' "$usage"; exit 0 ;;
      --) words+=("$@"); return ;;
      --*)
        if is_in "$flag" "$switches"; then
          [ "$word" = "--$flag" ] || refuse "--$flag takes no value: write --$flag, not $word."
          printf -v "$key" yes
        elif is_in "$flag" "$values"; then
          if [ "$word" = "--$flag" ]; then
            [ $# -gt 0 ] && [ "${1#--}" = "$1" ] || refuse "--$flag needs a value: write --$flag=VALUE."
            value="$1"; shift
          else
            value="${word#*=}"
          fi
          [ -n "$value" ] || refuse "--$flag is empty: write --$flag=VALUE."
          printf -v "$key" '%s' "$value"
        else
          refuse "--$flag is no flag of ${0##*/}. Flags:$(printf -- ' --%s' $values $switches help)."
        fi ;;
      -*) refuse "$word is no flag of ${0##*/}: flags begin with --, see ${0##*/} --help." ;;
      *)
        words+=("$word")
        if [ "${#words[@]}" -ge "$leading" ]; then words+=("$@"); return; fi ;;
    esac
  done
}

# quoted WORD...: as a shell takes them.
quoted() {
  local word text=""
  for word in "$@"; do
    if matches "$word" '[-_=+:,./@%A-Za-z0-9]+'; then text="$text $word"
    elif matches "$word" "[^']+"; then text="$text '$word'"
    else text="$text $(printf '%q' "$word")"
    fi
  done
  printf '%s' "${text# }"
}

# call WORD...: runs the command, or prints it where --dry-run is given.
call() {
  if [ "$dry_run" = yes ]; then printf '%s\n' "$(quoted "$@")"; else "$@"; fi
}
