# Keeps one PostgreSQL for as long as its standard input stays open: sh cluster.sh BIN FOLDER PORT FSYNC [-c NAME=VALUE]...
# Reads `start`, `stop` and `crash`, a line each, and answers each with a line. When the input ends, however its owner
# died, the server stops and FOLDER goes. The new cluster's password is the content of FOLDER/password.
set -u
bin=$1 folder=$2 port=$3 fsync=$4
shift 4
finish() {
  "$bin/pg_ctl" -D "$folder/data" -m immediate -w stop >/dev/null 2>&1
  cd / && rm -rf "$folder"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM
cd "$folder" || exit 1
"$bin/initdb" -D "$folder/data" -U cluegate --auth=scram-sha-256 --pwfile="$folder/password" --encoding=UTF8 --locale=C \
  --no-sync >"$folder/log" 2>&1 || { echo "failed: initdb: $(tail -n 3 "$folder/log" | tr '\n' ' ')"; exit 1; }
options="-p $port -k $folder -c listen_addresses=127.0.0.1 -c fsync=$fsync \
-c full_page_writes=$fsync -c max_connections=200 $*"
echo made
while read -r order; do
  case $order in
    start)
      if "$bin/pg_ctl" -D "$folder/data" -w -t 60 -l "$folder/log" -o "$options" start >/dev/null 2>&1; then
        echo done
      else
        echo "failed: start: $(tail -n 3 "$folder/log" | tr '\n' ' ')"
      fi
      ;;
    stop | crash)
      mode=fast
      [ "$order" = stop ] || mode=immediate
      if "$bin/pg_ctl" -D "$folder/data" -w -t 60 -m "$mode" stop >/dev/null 2>&1; then echo done; else echo "failed: stop"; fi
      ;;
    *) echo "failed: unknown order $order" ;;
  esac
done
