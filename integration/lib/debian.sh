# A fresh Debian in a folder, with its own processes and host name, and the network of the world: where the package is
# installed as an operator would. It has no init; lib/systemctl.sh takes systemctl's place. Sourced by integration/run
# (debian_base) and by stories.

# debian_base: makes the packed root, or finds the one of an earlier run.
debian_base() {
  local codename cache=${STSRELAY_CACHE:-$W}
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  export DEBIAN_BASE=$cache/debian-$codename.tar
  [ ! -e "$DEBIAN_BASE" ] || return 0
  echo 'making a Debian root (about a minute)'
  mkdir -p "$cache" || return
  if ! mmdebstrap --variant=minbase --include=systemd,ca-certificates,postfix,apt "$codename" "$cache/new.tar" \
    "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$W/log/mmdebstrap.log" 2>&1 </dev/null; then
    tail -n 20 "$W/log/mmdebstrap.log" >&2
    return 1
  fi
  mv "$cache/new.tar" "$DEBIAN_BASE"
}

# root_start HOSTNAME: unpacks it to $R and starts a process of its own there; the others end with it.
root_start() {
  export R=$S/root
  mkdir -p "$R"
  tar -xf "$DEBIAN_BASE" -C "$R" --numeric-owner
  install -m 755 "$HERE/lib/systemctl.sh" "$R/usr/local/bin/systemctl"
  install -m 644 "$HERE/lib/activate.pl" "$R/usr/local/lib/activate.pl"
  printf '#!/bin/sh\nexec "$@"\n' >"$R/usr/local/bin/sudo"
  chmod 755 "$R/usr/local/bin/sudo"
  printf '#!/bin/sh\nexit 101\n' >"$R/usr/sbin/policy-rc.d"
  chmod 755 "$R/usr/sbin/policy-rc.d"
  cp /etc/resolv.conf "$R/etc/resolv.conf"
  # shellcheck disable=SC2016
  unshare --mount --uts --pid --fork --kill-child sh -c '
    mount -t proc proc "$R/proc" && mount -t tmpfs -o mode=755 tmpfs "$R/run" && touch "$R/root/up" || exit
    while :; do sleep 1; done' >>"$S/root.log" 2>&1 </dev/null &
  root_pid=$!
  within 10 'a Debian root is up' test -e "$R/root/up"
  root_init=$(pgrep -P "$root_pid")
  root_name "$1"
}

# root_name HOSTNAME: what the host is called from now on.
root_name() {
  printf '127.0.0.1 localhost\n127.0.1.1 %s %s\n' "$1" "${1%%.*}" >"$R/etc/hosts"
  in_root hostname "${1%%.*}"
}

# in_root COMMAND...: runs it there, as root.
in_root() {
  nsenter --target "$root_init" --mount --uts --pid chroot "$R" env -i HOME=/root LC_ALL=C.UTF-8 TERM=dumb \
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
  [ -z "${root_pid:-}" ] || kill -TERM "$root_pid" 2>/dev/null || true
  root_pid=
}
