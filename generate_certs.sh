#!/usr/bin/env bash
# Makes server.crt and server.key in the current directory: a self-signed P-256 certificate (every QUIC client
# takes that curve; some refuse Ed25519) for localhost, 127.0.0.1, ::1 and each HOST given.
set -euo pipefail

readonly certificate=server.crt key=server.key
readonly days=3650  # whoever trusts this very certificate must be given the next one by hand

usage() {
    cat <<'TEXT'
Usage: generate_certs.sh [HOST...]

  ./generate_certs.sh                                 for this machine alone
  ./generate_certs.sh files.example.org 192.0.2.7     for others too: names, IPv4 or IPv6 addresses

Writes server.crt and server.key (mode 0600) into the current directory. A key that is there is never
replaced: remove both files to make new ones.
TEXT
}

fail() {
    echo "generate_certs.sh: $1" >&2
    exit "${2:-1}"
}

# One subjectAltName entry for a host: IP:… or DNS:…
alternative_name() {
    local host=$1
    host=${host#[}
    host=${host%]}
    case $host in
        *:*) [[ $host =~ ^[0-9A-Fa-f:.]+$ ]] || fail "'$1' is no IPv6 address" 2; echo "IP:$host" ;;
        *[!A-Za-z0-9._*-]* | -* | "") fail "'$1' is no host name or address" 2 ;;
        *[!0-9.]*) echo "DNS:$host" ;;
        *) echo "IP:$host" ;;
    esac
}

names="DNS:localhost,IP:127.0.0.1,IP:::1"
for host in "$@"; do
    case $host in
        -h | --help) usage; exit 0 ;;
    esac
    name=$(alternative_name "$host") || exit
    case ",$names," in
        *",$name,"*) ;;
        *) names="$names,$name" ;;
    esac
done

if [[ -e $key && -e $certificate ]]; then
    echo "$key and $certificate are there already and stay as they are; remove both to make new ones"
    exit 0
fi
if [[ -e $certificate ]]; then
    fail "$certificate is here without its $key: remove it, or bring the key back"
fi
command -v openssl >/dev/null 2>&1 \
    || fail "openssl is needed and not installed (apt install openssl, dnf install openssl, brew install openssl)" 127

umask 077
scratch=$(mktemp -d "./.generate_certs.XXXXXX") || fail "cannot write into $(pwd)"
trap 'rm -rf "$scratch"' EXIT

cat >"$scratch/openssl.cnf" <<TEXT
[req]
prompt = no
distinguished_name = subject
x509_extensions = extensions
[subject]
commonName = localhost
[extensions]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
subjectAltName = $names
TEXT

# Runs openssl quietly, and shows what it said only when it failed.
quiet_openssl() {
    openssl "$@" 2>"$scratch/messages" || { cat "$scratch/messages" >&2; return 1; }
}

if [[ -e $key ]]; then
    echo "$key is there already and stays as it is"
    signing_key=$key
else
    signing_key=$scratch/key
    quiet_openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:named_curve \
        -out "$signing_key" || fail "openssl could not make a key"
fi
quiet_openssl req -new -x509 -sha256 -days "$days" -key "$signing_key" -config "$scratch/openssl.cnf" \
    -out "$scratch/certificate" || fail "openssl could not make the certificate"

# The key comes first: a key without a certificate is completed by the next run.
if [[ $signing_key != "$key" ]]; then
    mv "$signing_key" "$key"
fi
chmod 0644 "$scratch/certificate"
mv "$scratch/certificate" "$certificate"
echo "wrote $certificate for ${names//,/, }"
