#!/bin/sh
# Runs a command that sees FILE as the machine's managed settings: a copy of /etc is mounted over /etc for it alone.
# usage: managed.sh FILE DIR COMMAND...    (DIR: an empty directory for the copy)
file=$1 etc=$2
shift 2
exec unshare -m sh -c '
  file=$1 etc=$2; shift 2
  mount --make-rprivate /
  cp -a /etc/. "$etc" 2>/dev/null
  mkdir -p "$etc/claude-code" && cp "$file" "$etc/claude-code/managed-settings.json" && mount --bind "$etc" /etc || exit 125
  exec "$@"' sh "$file" "$etc" "$@"
