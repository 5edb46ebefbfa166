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
    # --now is for us.
    for word; do
      shift
      [ "$word" = --now ] || set -- "$@" "$word"
    done
    /usr/bin/systemctl "$@"
    [ $now = yes ] && [ "$verb" = enable ] || exit 0
    # A socket is served as soon as its service is started.
    set --
    for unit in $units; do case $unit in *.socket) ;; *) set -- "$@" "$unit" ;; esac; done
    [ $# -eq 0 ] || exec "$0" start "$@"
    exit 0
    ;;
esac

# value UNIT KEY: the last line of that key; what an administrator put in place comes first.
value() {
  for folder in /etc/systemd/system /usr/lib/systemd/system; do
    [ -e "$folder/$1" ] || continue
    sed -n "s/^$2=//p" "$folder/$1" | tail -n 1
    return
  done
}
# listens NAME: the addresses of its socket unit and of what was added to that; an empty one begins anew.
listens() {
  for folder in /etc/systemd/system /usr/lib/systemd/system; do
    [ -e "$folder/$1.socket" ] || continue
    cat "$folder/$1.socket"
    break
  done | cat - "/etc/systemd/system/$1.socket.d"/*.conf 2>/dev/null |
    awk -F= '$1 == "ListenStream" { if ($2 == "") all = ""; else all = all " " $2 } END { print all }'
}
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
  name=$1
  # shellcheck disable=SC2046
  set -- setpriv --reuid="$user" --regid="$user" --clear-groups --inh-caps=-all --no-new-privs \
    $(value "$name.service" ExecStart)
  # The sockets of an enabled socket unit.
  if [ -e "/etc/systemd/system/sockets.target.wants/$name.socket" ]; then
    # shellcheck disable=SC2046
    set -- perl /usr/local/lib/activate.pl $(listens "$name") -- "$@"
  fi
  # Not to the journal, which is not there.
  umask "$(value "$name.service" UMask)"
  STSRELAY_LOG__FORMAT=text "$@" >>"/var/log/$name.log" 2>&1 </dev/null &
  echo $! >"/run/$name.pid"
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
