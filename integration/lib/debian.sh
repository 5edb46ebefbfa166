# A fresh Debian in a folder, with its own processes and host name, and the network of the world: where the package is
# installed as an operator would. Its init is systemd, with the units' sandbox, where this machine lets us (a cgroup of
# our own); otherwise lib/systemctl.sh plays systemctl. Sourced by integration/run (debian_base) and by stories.

# debian_base: makes the packed root, or finds the one of an earlier run.
debian_base() {
  local codename mirror cache=${STSRELAY_CACHE:-$W}
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  export DEBIAN_BASE=$cache/debian-$codename.tar
  [ ! -e "$DEBIAN_BASE" ] || return 0
  echo 'making a Debian root (about a minute)'
  mkdir -p "$cache" || return
  mirror=$(debian_mirror "$codename")
  if [ -z "$mirror" ]; then
    apt-get -q update >"$W/log/apt-update.log" 2>&1
    mirror=$(debian_mirror "$codename")
  fi
  if ! mmdebstrap --variant=minbase --include=systemd,ca-certificates,postfix,apt "$codename" "$cache/new.tar" \
    ${mirror:+"$mirror"} >"$W/log/mmdebstrap.log" 2>&1 </dev/null; then
    tail -n 20 "$W/log/mmdebstrap.log" >&2
    return 1
  fi
  mv "$cache/new.tar" "$DEBIAN_BASE"
}

# debian_mirror CODENAME: where this machine has its own packages from; where it cannot tell, mmdebstrap knows a place.
debian_mirror() {
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $1" 'Origin: Debian' 'Component: main' |
    head -n 1
}

# root_start HOSTNAME: unpacks it to $R and starts an init there; everything ends with that.
root_start() {
  export R=$S/root
  mkdir -p "$R/old"
  tar -xf "$DEBIAN_BASE" -C "$R" --numeric-owner
  printf '#!/bin/sh\nexec "$@"\n' >"$R/usr/local/bin/sudo"
  chmod 755 "$R/usr/local/bin/sudo"
  cp /etc/resolv.conf "$R/etc/resolv.conf"
  if root_cgroup; then
    # What a story needs of a boot, and nothing that touches the machine.
    find "$R"/{lib,etc}/systemd/system/{sysinit,multi-user,timers,getty}.target.wants \
      "$R"/lib/systemd/system/sockets.target.wants ! -type d ! -name 'systemd-journald*' -delete 2>/dev/null || true
    root_init /lib/systemd/systemd --system --unit=multi-user.target --show-status=no --log-target=journal
    within 20 'a Debian has booted' in_root systemctl is-active multi-user.target
  else
    say 'no cgroup for a systemd: systemctl is played'
    install -m 755 "$HERE/lib/systemctl.sh" "$R/usr/local/bin/systemctl"
    install -m 644 "$HERE/lib/activate.pl" "$R/usr/local/lib/activate.pl"
    printf '#!/bin/sh\nexit 101\n' >"$R/usr/sbin/policy-rc.d"
    chmod 755 "$R/usr/sbin/policy-rc.d"
    root_init sh -c 'while :; do sleep 1; done'
    within 10 'a Debian root is up' in_root true
  fi
  root_name "$1"
}

# root_cgroup: makes one for it, below ours.
root_cgroup() {
  local mount
  mount=$(findmnt -n -t cgroup2 -o TARGET | head -n 1)
  root_group=$mount/stsrelay-it.$$
  [ -n "$mount" ] && mkdir "$root_group" 2>/dev/null || { root_group=; return 1; }
}

# root_init COMMAND...: its process 1, in a root of its own; what is the machine's can only be read there.
root_init() {
  # shellcheck disable=SC2016
  (
    [ -z "$root_group" ] || echo "$BASHPID" >"$root_group/cgroup.procs"
    export GROUP=$root_group
    exec unshare --mount --uts --pid --ipc --cgroup --fork --kill-child sh -euc '
      mount --bind "$R" "$R"
      mount -t proc proc "$R/proc"
      mount --bind "$R/proc/sys" "$R/proc/sys"
      mount -o remount,bind,ro "$R/proc/sys"
      mount -t sysfs -o ro sysfs "$R/sys"
      [ -z "$GROUP" ] || mount -t cgroup2 cgroup2 "$R/sys/fs/cgroup"
      mount -t tmpfs -o mode=755 tmpfs "$R/run"
      mount -t tmpfs tmpfs "$R/tmp"
      cd "$R"
      pivot_root . old
      umount --no-canonicalize -l /old
      exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"' sh "$@"
  ) >>"$S/root.log" 2>&1 </dev/null &
  root_pid=$!
  local i
  for ((i = 0; i < 50; i++)); do
    root_first=$(pgrep -P "$root_pid" || true)
    [ -z "$root_first" ] || return 0
    sleep 0.1
  done
  fail "no root: $(cat "$S/root.log")"
}

# root_name HOSTNAME: what the host is called from now on.
root_name() {
  printf '127.0.0.1 localhost\n127.0.1.1 %s %s\n' "$1" "${1%%.*}" >"$R/etc/hosts"
  in_root hostname "${1%%.*}"
}

# in_root COMMAND...: runs it there, as root.
in_root() {
  nsenter --target "$root_first" --mount --uts --ipc --pid --cgroup env -i HOME=/root LC_ALL=C.UTF-8 TERM=dumb \
    DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# root_world: makes the world around the stories the Internet of the relay in the root.
root_world() {
  mkdir -p "$R/etc/stsrelay/stsrelay.d"
  cp "$W/tls/ca.crt" "$R/etc/stsrelay/world.crt"
  cat >"$R/etc/stsrelay/stsrelay.d/99-world.toml" <<TOML
[tls]
extra_roots_file = "/etc/stsrelay/world.crt"
use_system_roots = false
[dns]
nameservers = ["127.0.0.1:$DNS_PORT"]
[delivery]
smtp_port = $SMTP_PORT
retry = ["1s", "2s"]
[mta_sts]
https_port = $HTTPS_PORT
[network]
allow_private_destinations = ["127.0.0.0/8"]
TOML
}

root_stop() {
  [ -n "${root_pid:-}" ] || return 0
  kill -KILL "$root_pid" 2>/dev/null || true
  wait "$root_pid" 2>/dev/null || true
  root_pid=
  [ -n "$root_group" ] || return 0
  local i
  for ((i = 0; i < 50; i++)); do
    find "$root_group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    [ -e "$root_group" ] || return 0
    sleep 0.1
  done
}
