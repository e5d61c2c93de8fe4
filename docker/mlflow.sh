#!/bin/sh
# The MLflow server on PostgreSQL. The password is read from a file and handed to libpq: it is in no address, argument or log.
set -eu
PGPASSWORD="$(cat "${DATABASE_PASSWORD_FILE:-/run/secrets/database_password}")"
export PGPASSWORD
exec mlflow server \
    --backend-store-uri "postgresql://${DATABASE_USER:-mlflow}@${DATABASE_HOST:-database}/${DATABASE_NAME:-mlflow}" \
    --artifacts-destination "${ARTIFACTS:-/artifacts}" \
    --host "${LISTEN:-0.0.0.0}" --port "${PORT:-5000}" --workers "${WORKERS:-2}" \
    --allowed-hosts "${ALLOWED_HOSTS:?names and ports the server may be called by, such as localhost:5000}"
