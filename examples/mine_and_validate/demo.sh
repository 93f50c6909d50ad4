#!/usr/bin/env bash
# A market on this machine with wallets of your own: a chain, a subnet, two miners, a validator, all by commands.
# demo.sh [FOLDER [PORT]]: everything is in FOLDER; PORT is the chain's, 0 for a free one. Each program that stays runs in
# the background here, as in a shell of its own.
set -euo pipefail
FOLDER=${1:-market} PORT=${2:-9944} DOCUMENTS=${3:-400}
mkdir "$FOLDER" && cd "$FOLDER" # a new folder
export BT_WALLET_PATH=$PWD/wallets RAYTENSOR_HOME=$PWD/home
settings=(data=bytes data.max_documents="$DOCUMENTS" cluster.num_cpus=1 allow_coldkey=true paths.runs="$PWD/runs")
background=()
trap 'kill -TERM ${background[@]} 2>/dev/null; wait' EXIT

# The first shell: a chain with fast blocks.
raytensor devnet --port "$PORT" --block-time 0.25 --quiet > devnet.log &
background+=($!)
until grep -q ws:// devnet.log; do sleep 0.1; done
BT_NETWORK=$(grep -o 'ws://[0-9.:]*' devnet.log | head -1)
export BT_NETWORK

# The second shell: wallets, a subnet, registrations.
for keys in "owner default" "alice hot1" "bob validator"; do
    set -- $keys
    raytensor wallet create -w "$1" -H "$2" --no-password --phrase-file "$1.phrase" > "$1.log"
done
raytensor wallet create -w alice -H hot2 --hotkey-only --phrase-file alice2.phrase > alice2.log
raytensor transfer owner 2000 -w //Alice --yes
raytensor transfer alice 100 -w //Alice --yes
raytensor transfer bob 1000 -w //Alice --yes

raytensor subnets create -w owner --max-cost 1500 --yes
netuid=2
for parameter in "tempo 20" "subnet_emission_enabled true" "commit_reveal_weights_enabled false" \
    "weights_set_rate_limit 0" "max_registrations_per_block 8"; do
    raytensor subnets set $netuid $parameter -w //Alice --sudo --yes # a development chain has a sudo key
done
raytensor subnets start $netuid -w owner --yes
raytensor register --netuid $netuid -w bob -H validator --max-burn 5 --yes
raytensor register --netuid $netuid -w alice -H hot1 --max-burn 5 --yes
raytensor register --netuid $netuid -w alice -H hot2 --max-burn 5 --yes
raytensor stake add 500 --netuid $netuid -w bob -H validator --no-limit --yes

# The third and the fourth shell: two miners behind one server, and a validator.
raytensor mine netuids=[$netuid] hotkeys=[alice/hot1,alice/hot2] "${settings[@]}" miners.wire.ip=127.0.0.2 \
    miners.wire.port=0 pause_s=1 miners.seq_len=16 mechanism.query.context=16 \
    "miners.profiles=[{hidden: 64, layers: 2, steps: 20}, {hidden: 32, layers: 2, heads: 2, steps: 5}]" \
    > mine.log 2>&1 &
background+=($!)
raytensor validate netuids=[$netuid] hotkeys=[bob/validator] "${settings[@]}" asking.allow_local_addresses=true \
    mechanism.query.context=16 > validate.log 2>&1 &
background+=($!)

# The second shell again: wait until the consensus pays, then ask.
until raytensor metagraph $netuid --json | python -c '
import json, sys
sys.exit(not any(neuron["incentive"] for neuron in json.load(sys.stdin)["neurons"]))'; do
    kill -0 "${background[@]}" # both still run
    sleep 1
done
raytensor metagraph $netuid
raytensor query --netuid $netuid --prompt "import " --allow-local -w bob -H validator --context 16 --tokens 8
