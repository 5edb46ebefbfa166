# Starting and ending processes, always by pid. Sourced by world.sh and story.sh.

# spawn NAME COMMAND...: starts a process in a group of its own; output to log/NAME.out, pid to pid/NAME.
spawn() {
  local name=$1
  shift
  setsid "$@" >>"$W/log/$name.out" 2>&1 </dev/null &
  echo $! >"$W/pid/$name"
}

# runs NAME: whether what was spawned under this name still does.
runs() { [ -e "$W/pid/$1" ] && kill -0 "$(cat "$W/pid/$1")" 2>/dev/null; }

# stop NAME: ends what was spawned under this name.
stop() {
  end_group "$(cat "$W/pid/$1")"
  rm -f "$W/pid/$1"
}

# end_group PID: ends a process started as leader of its group, and what it started; waits; insists after 5 s.
end_group() {
  local pid=$1 i
  kill -TERM -- "-$pid" 2>/dev/null || return 0
  for ((i = 0; i < 50; i++)); do
    kill -0 -- "-$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL -- "-$pid" 2>/dev/null
  return 0
}

# wait_port ADDRESS PORT: until something listens there, 10 s at most.
wait_port() {
  local i
  for ((i = 0; i < 100; i++)); do
    if (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; then return 0; fi
    sleep 0.1
  done
  echo "nothing listens on $1:$2 after 10 s" >&2
  return 1
}
