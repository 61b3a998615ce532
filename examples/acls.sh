#!/usr/bin/env bash
# Least privilege for each role of Anabranch, by Kafka's own tool. See docs/acls.md.
#
#   examples/acls.sh broker:9092 [--command-config admin.properties]
#
# NAMESPACE=anabranch.    the configuration's `namespace`
# CLIENT, COORDINATOR, WORKER, OPERATOR    principals, e.g. User:asker
# REPLY_PREFIX=replies    topics that a query may name in `reply_to`, if there are any
# KAFKA_ACLS=kafka-acls.sh
set -euo pipefail

bootstrap=${1:?usage: acls.sh BOOTSTRAP [--command-config FILE]}
shift
namespace=${NAMESPACE:-anabranch.}
client=${CLIENT:-User:anabranch-client}
coordinator=${COORDINATOR:-User:anabranch-coordinator}
worker=${WORKER:-User:anabranch-worker}
operator=${OPERATOR:-User:anabranch-operator}

allow() {
    local principal=$1
    shift
    ${KAFKA_ACLS:-kafka-acls.sh} --bootstrap-server "$bootstrap" "${options[@]}" \
        --add --force --allow-principal "$principal" "$@"
}
options=("$@")

topics() {
    local name
    for name in "$@"; do printf -- '--topic %s%s ' "$namespace" "$name"; done
}

# Whoever asks: writes queries, reads answers, sees which layers there are.
allow "$client" --operation Write --operation Describe $(topics queries)
allow "$client" --operation Read --operation Describe $(topics results)

# Coordinators: read what is asked and found, write tasks, answers and what they learned.
allow "$coordinator" --operation Read --operation Describe \
    $(topics queries partials results control health telemetry)
allow "$coordinator" --operation Write --operation Describe $(topics results dlq health telemetry)
allow "$coordinator" --operation Write --operation Describe \
    --resource-pattern-type prefixed $(topics tasks.)
allow "$coordinator" --operation Read --operation Describe --group "${namespace}coordinators"
allow "$coordinator" --operation Write --operation Describe \
    --resource-pattern-type prefixed --transactional-id "${namespace}queries-"
if [[ -n ${REPLY_PREFIX:-} ]]; then
    allow "$coordinator" --operation Write --operation Describe \
        --resource-pattern-type prefixed --topic "$REPLY_PREFIX"
fi

# Workers: read tasks, write what they found, and have their own layers' cached results forgotten.
allow "$worker" --operation Read --operation Describe \
    --resource-pattern-type prefixed $(topics tasks.)
allow "$worker" --operation Read --operation Describe \
    --resource-pattern-type prefixed --group "${namespace}workers."
allow "$worker" --operation Write --operation Describe $(topics partials dlq control)
allow "$worker" --operation Read --operation Write --operation Describe $(topics health)

# Operators: make topics, look at everything, send orders, send dead letters back.
allow "$operator" --operation Create --operation Describe --operation DescribeConfigs \
    --operation Alter --operation AlterConfigs --operation Read --operation Write \
    --resource-pattern-type prefixed --topic "$namespace"
allow "$operator" --operation Read --operation Describe \
    --resource-pattern-type prefixed --group "$namespace"
