# named, authoritative and signing, with unbound validating in front. Sourced by world.sh and story.sh.
#
#   .                 signed; its key is the trust anchor
#   example           signed, with the mail hosts and most domains
#   signed.example    signed, with a DS record: the hosts that have TLSA records
#   bogus.example     signed, with the DS record of a key that it does not have: everything in it is bogus
#   open.example      not signed, below a signed zone
#   plain             not signed
#
# TTLs are one second, so that a change counts as soon as it is made. The binaries are copied: where AppArmor guards
# the packaged paths, servers started from there may not write into a directory of ours.

DNS_ZONES='. example plain signed.example bogus.example open.example'
SIGNED_ZONES='. example signed.example bogus.example'

dns_start() {
  local zone keys=$W/dns/keys
  mkdir -p "$keys" "$W/unbound"
  cp "$(command -v named)" "$W/bin/named"
  cp "$(command -v unbound)" "$W/bin/unbound"
  tsig-keygen it >"$W/dns/tsig.key"
  {
    cat <<CONF
include "$W/dns/tsig.key";
options {
  directory "$W/dns";
  listen-on port $AUTHORITY_PORT { $DNS_ADDRESS; };
  listen-on-v6 { none; };
  pid-file none; session-keyfile none;
  recursion no; dnssec-validation no; notify no; minimal-responses yes;
  key-directory "$keys";
};
controls { };
dnssec-policy it { keys { csk lifetime unlimited algorithm ecdsap256sha256; }; };
CONF
    for zone in $DNS_ZONES; do
      echo "zone \"$zone\" { type primary; file \"zone.${zone/#./root}\"; update-policy { grant it zonesub ANY; };"
      [[ " $SIGNED_ZONES " != *" $zone "* ]] || echo '  dnssec-policy it;'
      echo '};'
    done
  } >"$W/dns/named.conf"
  for zone in $SIGNED_ZONES; do
    dnssec-keygen -q -k it -l "$W/dns/named.conf" -K "$keys" "$zone" >>"$W/log/dnssec.out" 2>&1 || return
  done
  for zone in $DNS_ZONES; do
    {
      printf '$TTL 1\n@ SOA ns.example. postmaster.example. 1 3600 600 86400 1\n@ NS ns.example.\n'
      case $zone in
        .)
          printf 'example. NS ns.example.\nplain. NS ns.example.\nns.example. A %s\n' "$DNS_ADDRESS"
          dnssec-dsfromkey -2 "$keys"/Kexample.+*.key
          ;;
        example)
          printf 'ns A %s\nsigned NS ns\nbogus NS ns\nopen NS ns\n' "$DNS_ADDRESS"
          dnssec-dsfromkey -2 "$keys"/Ksigned.example.+*.key
          # The digest is of no key.
          dnssec-dsfromkey -2 "$keys"/Kbogus.example.+*.key | sed -E 's/[0-9A-F]{32}$/00000000000000000000000000000000/'
          ;;
      esac
    } >"$W/dns/zone.${zone/#./root}"
  done
  spawn named "$W/bin/named" -g -n 1 -c "$W/dns/named.conf"
  wait_port "$DNS_ADDRESS" "$AUTHORITY_PORT" || return

  # The root's key is the one thing trusted beforehand, as in the real world.
  grep -h DNSKEY "$keys"/K.+*.key >"$W/unbound/root.key"
  {
    cat <<CONF
server:
  directory: "$W/unbound"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  logfile: ""
  interface: 127.0.0.1@$DNS_PORT
  port: $DNS_PORT
  do-ip6: no
  num-threads: 1
  do-not-query-localhost: no
  qname-minimisation: no
  module-config: "validator iterator"
  trust-anchor-file: "$W/unbound/root.key"
  cache-max-ttl: 1
  cache-max-negative-ttl: 1
  infra-host-ttl: 1
remote-control:
  control-enable: yes
  control-interface: $W/unbound/control
  control-use-cert: no
CONF
    for zone in $DNS_ZONES; do
      printf 'stub-zone:\n  name: "%s"\n  stub-addr: %s@%s\n' "$zone" "$DNS_ADDRESS" "$AUTHORITY_PORT"
    done
  } >"$W/unbound/unbound.conf"
  spawn unbound "$W/bin/unbound" -d -c "$W/unbound/unbound.conf"
  wait_port 127.0.0.1 "$DNS_PORT" || return
  for address in $MANY_NAMES; do echo "add $address.signed.example. 1 A $MANY_ADDRESS"; done |
    dns_update signed.example || return
  dns_update signed.example <<UPDATE || return
add pinclear.signed.example. 1 A 127.0.1.6
add oddclear.signed.example. 1 A 127.0.1.6
add clear.signed.example. 1 A 127.0.1.6
add requiretls.signed.example. 1 A $REQUIRETLS_ADDRESS
UPDATE

  local face name address
  for face in "${FACES[@]}"; do
    read -r name address <<<"$face"
    [ "$name" != mxwire ] || address=$WIRE_ADDRESS
    echo "add $name.example. 1 A $address"
  done | dns_update example || return
  dns_update example <<UPDATE
add origin.example. 1 A $ORIGIN_ADDRESS
add origin.example. 1 MX 10 origin.example.
add reports.example. 1 A $POLICY_ADDRESS
add reports.example. 1 MX 10 mx1.example.
UPDATE
}

# dns_update ZONE: nsupdate commands on stdin, in force when it returns.
dns_update() {
  local zone=$1
  { printf 'server %s %s\nzone %s\n' "$DNS_ADDRESS" "$AUTHORITY_PORT" "$zone"; cat; echo send; } |
    nsupdate -k "$W/dns/tsig.key" || return
  unbound-control -q -c "$W/unbound/unbound.conf" flush_zone . || return
  # A running daemon may keep what it knew for the TTL.
  [ -z "${daemon_pid:-}" ] || sleep 1.1
}

# dns_batch FILE: many changes at once. Lines `ZONE COMMAND...`, COMMAND as nsupdate knows it; in force when it returns.
dns_batch() {
  local zone
  for zone in $(cut -d' ' -f1 "$1" | sort -u); do
    sed -n "s/^${zone//./\\.} //p" "$1" | dns_update "$zone" || return
  done
}

# dns_answer NAME TYPE: the records as the resolver gives them, one a line.
dns_answer() {
  dig +short +time=2 +tries=2 @127.0.0.1 -p "$DNS_PORT" "$1" "$2"
}
