# Installs the Debian packages the stories need, when they are missing.
#
# Starts no service: while apt works, policy-rc.d answers 101 ("not allowed"), and what was there before comes back after.
# Writes no configuration for Postfix ("No configuration"), so the machine does not become a mail host by running tests.
# Sourced by integration/run; needs root.

PACKAGES=(
  postfix                           # submitting host and receiving MX
  bind9 bind9-dnsutils              # authoritative server, nsupdate, dig
  unbound                           # validating resolver in front of it
  nginx-light                       # policy host and https: report endpoint
  swaks libnet-ssleay-perl          # authenticated client
  gsasl                             # SCRAM and EXTERNAL as a client
  haproxy                           # proxy in front of a listener
  openssl                           # test CA
  python3 python3-dkim python3-nacl python3-dnspython # helpers, DKIM verification
  curl jq procps iproute2
  chromium chromium-driver python3-selenium # the status page
  systemd strace                    # systemd-analyze; what the daemon asks of the kernel
  mmdebstrap dpkg-dev groff-base lintian # the package, in a root of its own
)

packages_missing() {
  local package
  for package in "${PACKAGES[@]}"; do
    dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || echo "$package"
  done
}

POLICY=/usr/sbin/policy-rc.d
policy_changed=no

packages_install() {
  local missing
  mapfile -t missing < <(packages_missing)
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "installing: ${missing[*]}"
  [ ! -e $POLICY ] || cp -p $POLICY "$W/policy-rc.d"
  policy_changed=yes
  printf '#!/bin/sh\nexit 101\n' >$POLICY
  chmod 755 $POLICY
  if ! packages_apt "${missing[@]}" >"$W/log/apt.log" 2>&1 </dev/null; then
    echo "integration/run: apt could not install ${missing[*]}:" >&2
    tail -n 20 "$W/log/apt.log" >&2
    return 1
  fi
  packages_restore
}

packages_apt() {
  dpkg-query -W postfix ||
    echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
  export DEBIAN_FRONTEND=noninteractive
  apt-get -q update && apt-get -q -y --no-install-recommends install "$@"
}

# Puts policy-rc.d back; also called when the run is interrupted.
packages_restore() {
  [ $policy_changed = yes ] || return 0
  policy_changed=no
  if [ -e "$W/policy-rc.d" ]; then
    cp -p "$W/policy-rc.d" $POLICY
  else
    rm -f $POLICY
  fi
}
