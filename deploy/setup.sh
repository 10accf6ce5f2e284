#!/bin/sh
# setup.sh: write what compose.yaml reads: keys and the configuration of NATS in nats/generated,
# passwords in .env, and a first configuration in config. Existing files are kept.
# TOOLBUS_IMAGE names another image.
set -eu
cd "$(dirname "$0")"
umask 077
user=$(id -u) group=$(id -g)
if [ "$user" = 0 ]; then
    user=10001 group=10001 # no container runs as root
fi
mkdir -p config nats/generated/data
[ -e config/toolbus.yaml ] || cp demo.yaml config/toolbus.yaml
[ "$(id -u)" != 0 ] || chown -R "$user:$group" config nats/generated
docker run --rm --network none --user "$user:$group" --volume "$PWD/nats/generated:/keys" \
    "${TOOLBUS_IMAGE:-toolbus}" nats-config /keys \
    --listen 0.0.0.0 --store-dir /data --monitor 127.0.0.1:8222
password() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}
[ -e .env ] || cat > .env << END
TOOLBUS_UID=$user
TOOLBUS_GID=$group
TOOLBUS_VALKEY_PASSWORD=$(password)
TOOLBUS_CLICKHOUSE_PASSWORD=$(password)
TOOLBUS_GRAFANA_PASSWORD=$(password)
TOOLBUS_GRAFANA_READER_PASSWORD=$(password)
END
echo "Wrote .env and nats/generated. Next: docker compose -f $PWD/compose.yaml up --detach --wait"
