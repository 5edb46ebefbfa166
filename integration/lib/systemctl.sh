#!/bin/sh
# systemctl in little, for a root without an init: starts a service as its unit says (ExecStart=, User=, the folders),
# without the sandbox. What needs no init is left to systemctl itself.
set -eu

verb=
now=no
units=
for word; do
  case $word in
    --now) now=yes ;;
    -*) ;;
    *) if [ -z "$verb" ]; then verb=$word; else units="$units ${word%.service}"; fi ;;
  esac
done

case $verb in
  start | stop | restart | reload | is-active | daemon-reload) ;;
  *)
    /usr/bin/systemctl "$@"
    [ $now = yes ] && [ "$verb" = enable ] || exit 0
    # A socket without its service is nothing here.
    set --
    for unit in $units; do set -- "$@" "${unit%.socket}"; done
    exec "$0" restart "$@"
    ;;
esac

folder=/usr/lib/systemd/system
# value UNIT KEY: the last line of that key.
value() { sed -n "s/^$2=//p" "$folder/$1" | tail -n 1; }
running() { [ -e "/run/$1.pid" ] && kill -0 "$(cat "/run/$1.pid")" 2>/dev/null; }

start() {
  ! running "$1" || return 0
  if [ "$1" = postfix ]; then
    # As its unit does.
    /usr/lib/postfix/configure-instance.sh - && postfix start
    return
  fi
  user=$(value "$1.service" User)
  install -d -o "$user" -g "$user" -m "$(value "$1.service" StateDirectoryMode)" \
    "/var/lib/$(value "$1.service" StateDirectory)"
  install -d -o "$user" -g "$user" -m "$(value "$1.service" RuntimeDirectoryMode)" \
    "/run/$(value "$1.service" RuntimeDirectory)"
  set -- "$1" setpriv --reuid="$user" --regid="$user" --clear-groups --inh-caps=-all --no-new-privs
  # The sockets of an enabled socket unit; whoever connects first starts the service.
  if [ -e "/etc/systemd/system/sockets.target.wants/$1.socket" ]; then
    set -- "$@" $(value "$1.service" ExecStart)
    name=$1
    shift
    listen=$(sed -n 's/^ListenStream=/--listen=/p' "$folder/$name.socket" "/etc/systemd/system/$name.socket.d"/*.conf 2>/dev/null |
      sed -n '/=$/!p')
    # shellcheck disable=SC2086
    set -- "$name" systemd-socket-activate -E STSRELAY_LOG__FORMAT $listen "$@"
  else
    # shellcheck disable=SC2046
    set -- "$@" $(value "$1.service" ExecStart)
  fi
  name=$1
  shift
  # Not to the journal, which is not there.
  umask "$(value "$name.service" UMask)"
  STSRELAY_LOG__FORMAT=text "$@" >>"/var/log/$name.log" 2>&1 </dev/null &
  echo $! >"/run/$name.pid"
  [ "$1" != systemd-socket-activate ] || return 0
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    sleep 0.5
    running "$name" || { tail -n 5 "/var/log/$name.log" >&2; return 1; }
    ! "$name" queue stats >/dev/null 2>&1 || return 0
  done
  echo "$name does not answer" >&2
  return 1
}

stop() {
  if [ "$1" = postfix ]; then
    postfix stop
    return
  fi
  running "$1" || return 0
  kill -TERM "$(cat "/run/$1.pid")"
  while running "$1"; do sleep 0.1; done
  rm "/run/$1.pid"
}

for unit in $units; do
  case $verb in
    start) start "$unit" ;;
    stop) stop "$unit" ;;
    restart) stop "$unit" && start "$unit" ;;
    reload) if [ "$unit" = postfix ]; then postfix reload; else kill -HUP "$(cat "/run/$unit.pid")"; fi ;;
    is-active) running "$unit" ;;
  esac
done
[ -n "$units" ] || [ "$verb" = daemon-reload ]
