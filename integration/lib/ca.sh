# The test CA and the certificates of the world, made by openssl. Sourced by world.sh and story.sh.
# tls/NAME.key, tls/NAME.crt, and tls/NAME.pem (key and certificate, as Postfix wants them).

ca_start() {
  mkdir -p "$W/tls/issued"
  : >"$W/tls/index"
  echo 1000 >"$W/tls/serial"
  cat >"$W/tls/ca.conf" <<CONF
[ca]
default_ca = it
[it]
database = $W/tls/index
serial = $W/tls/serial
new_certs_dir = $W/tls/issued
certificate = $W/tls/ca.crt
private_key = $W/tls/ca.key
default_md = sha256
policy = any
unique_subject = no
copy_extensions = none
[any]
commonName = supplied
CONF
  ca_root ca 'stsrelay test CA'
}

# ca_root NAME SUBJECT: a self-signed authority.
ca_root() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$2" \
    -addext 'keyUsage=critical,keyCertSign,cRLSign' \
    -keyout "$W/tls/$1.key" -out "$W/tls/$1.crt" >>"$W/log/openssl.out" 2>&1
}

# certificate NAME [FILE [FROM UNTIL]]: NAME is what it is issued for, FILE where it goes (NAME if not given);
# FROM and UNTIL as 20240101000000Z.
certificate() {
  local name=$1 file=${2:-$1} from=${3:-} until=${4:-} base
  base=$W/tls/$file
  printf 'subjectAltName=DNS:%s\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n' "$name" >"$base.ext"
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=${name:0:60}" \
    -keyout "$base.key" -out "$base.csr" >>"$W/log/openssl.out" 2>&1 &&
    openssl ca -config "$W/tls/ca.conf" -batch -notext -in "$base.csr" -out "$base.crt" -extfile "$base.ext" \
      -startdate "${from:-$(date -u -d '-1 day' +%Y%m%d%H%M%SZ)}" -enddate "${until:-$(date -u -d '+20 days' +%Y%m%d%H%M%SZ)}" \
      >>"$W/log/openssl.out" 2>&1 &&
    cat "$base.key" "$base.crt" >"$base.pem"
}

# certificate_of AUTHORITY NAME FILE [NEWKEY...]: issued by another authority, for another kind of key, or signed with
# another DIGEST.
certificate_of() {
  local authority=$W/tls/$1 name=$2 base=$W/tls/$3
  shift 3
  [ $# -gt 0 ] || set -- -newkey ec -pkeyopt ec_paramgen_curve:P-256
  printf 'subjectAltName=DNS:%s\nbasicConstraints=critical,CA:FALSE\n' "$name" >"$base.ext"
  openssl req -new "$@" -nodes -subj "/CN=$name" -keyout "$base.key" -out "$base.csr" >>"$W/log/openssl.out" 2>&1 &&
    openssl x509 -req "-${DIGEST:-sha256}" -in "$base.csr" -CA "$authority.crt" -CAkey "$authority.key" -CAcreateserial -days 20 \
      -extfile "$base.ext" -out "$base.crt" >>"$W/log/openssl.out" 2>&1 &&
    cat "$base.key" "$base.crt" >"$base.pem"
}

# ca_intermediate NAME: an authority below the world's.
ca_intermediate() {
  local base=$W/tls/$1
  printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n' >"$base.ext"
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$base.key" \
    -out "$base.csr" >>"$W/log/openssl.out" 2>&1 &&
    openssl x509 -req -in "$base.csr" -CA "$W/tls/ca.crt" -CAkey "$W/tls/ca.key" -CAcreateserial -days 20 \
      -extfile "$base.ext" -out "$base.crt" >>"$W/log/openssl.out" 2>&1
}

# many_certificates: what the names of MANY_NAMES show.
many_certificates() {
  local zone=signed.example name
  for name in good pin pinbad ta odd lookup requiretls; do certificate $name.$zone || return; done
  for name in self pinself oddself; do self_signed $name.$zone $name.$zone || return; done
  # A trust anchor is found by clients that are handed it (RFC 7672 section 3.1.2).
  cat "$W/tls/ca.crt" >>"$W/tls/ta.$zone.pem"
  ca_root strangers 'CA of strangers' && ca_intermediate between &&
    certificate old.$zone old.$zone 20240101000000Z 20240201000000Z &&
    certificate early.$zone early.$zone "$(date -u -d '+2 days' +%Y%m%d%H%M%SZ)" &&
    certificate elsewhere.$zone name.$zone &&
    certificate_of strangers unknown.$zone unknown.$zone &&
    certificate_of ca weak.$zone weak.$zone -newkey rsa:1024 &&
    DIGEST=sha1 certificate_of ca sha1.$zone sha1.$zone &&
    certificate_of between part.$zone part.$zone
}

# key_digest NAME, certificate_digest NAME: what a TLSA record of the certificate says (selector 1, 0; SHA-256).
key_digest() {
  openssl x509 -in "$W/tls/$1.crt" -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256 -r | cut -d' ' -f1
}
certificate_digest() {
  openssl x509 -in "$W/tls/$1.crt" -outform DER | openssl dgst -sha256 -r | cut -d' ' -f1
}

# self_signed NAME FILE: nobody's word but its own.
self_signed() {
  local base=$W/tls/$2
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 20 -subj "/CN=$1" \
    -addext "subjectAltName=DNS:$1" -keyout "$base.key" -out "$base.crt" >>"$W/log/openssl.out" 2>&1 &&
    cat "$base.key" "$base.crt" >"$base.pem"
}
