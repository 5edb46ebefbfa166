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

# self_signed NAME FILE: nobody's word but its own.
self_signed() {
  local base=$W/tls/$2
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 20 -subj "/CN=$1" \
    -addext "subjectAltName=DNS:$1" -keyout "$base.key" -out "$base.crt" >>"$W/log/openssl.out" 2>&1 &&
    cat "$base.key" "$base.crt" >"$base.pem"
}
