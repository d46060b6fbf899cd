#!lua
-- The join, one call a batch and bucket: takes the bucket's state from S(at) to S(max(at, to)), or refuses.
--
-- The fold itself is `stream_monitor.core.joining.Fold`, line for line; tests hold the two together. What it must be: atomic,
-- a function of the log alone (no clock, no randomness), idempotent (what lies below `at` is answered from the outbox), and
-- free of writes until everything it needs has been read (a slot migration may fail a read midway).
--
-- Places in the log are positions here (core.joining.SPAN of them an offset), since a record of the journal carries several events.
--
-- KEYS[1]  the bucket: a hash of applied (at), trim, epoch, clock, origin and the counters. The other keys live under its hash tag:
--            :outbox       a stream, one entry a call that went beyond what is committed, id = the first offset after it, what it answered
--            :slots        a hash, "P:slot" or "F:slot" -> how many of that slot of log time still wait; "L:slot" -> how many labels came in
--                          it that name an owner
--            :labels:slot  a hash, of these: owner -> how many came, "+" and the owner -> how many of them met their prediction. One a slot, so
--                          that only what is over is read, however many owners there are
--            :<epoch>:<id> an entry: 8 bytes of log time, then a journal value whose kind may be J (joined: the head alone, with the label's time)
-- ARGV[1]  msgpack of {from, to, committed, epoch to begin with or "", window, horizon, slot, ttl, prefix, repeated, frames, keys, values}; one
--          argument, because thousands cost both sides more. Of each frame its first position, its time, and how many records follow from there; of
--          each record its key and its value. Whether a key comes `repeated`ly is said, because to find out is to keep a table of them. What
--          is stored is sent as it is stored, because every string that is put together here costs as much as a lookup: a key has the
--          prefix that the caller takes for the entries' (it knows the epoch from the last answer), a value has the record's time in front of it
-- Returns  {"OK", at, trim, {packed answers, ...}, epoch, {packed cohorts, ...}} or {"BEHIND", at or -1}; answers are flat triples of position,
--          verdict, the other side's entry, cohorts five each: position, since, owner, labels, orphans, in no order
local P, F, J, L = 80, 70, 74, 76
local MET = '+'
local J_HEAD = { '\1J', '\2J' } -- of a joined pair: the version is that of the prediction's head, since its owner is of that form
local JOINED, DUPLICATE, CONFLICT, LATE = 1, 2, 3, 4
local CHUNK = 3000 -- keys a command: Lua passes at most 8,000 arguments
-- MSETEX, with which entries cost a third less than with a SET each, came with Valkey 9.1 and Redis 8.4; some who serve Redis leave it out.
local MSETEX = (redis.VALKEY_VERSION_NUM or 0) >= 0x090100 or redis.REDIS_VERSION_NUM >= 0x080400

local byte, char, sub, format = string.byte, string.char, string.sub, string.format
local pack, unpack64, floor = struct.pack, struct.unpack, math.floor

local bucket = KEYS[1]
local call = cmsgpack.unpack(ARGV[1])
local from, to, committed, init = call[1], call[2], call[3], call[4]
local window, horizon, slot, ttl = call[5], call[6], call[7], call[8]
local supposed, repeated, frames, keys, values = call[9], call[10], call[11], call[12], call[13]

local state = redis.call('HMGET', bucket, 'applied', 'trim', 'epoch', 'clock')
local at, trim, epoch, clock = tonumber(state[1]), tonumber(state[2] or 0), state[3], tonumber(state[4] or 0)
local fresh = false
if not at then
  if init == '' then return { 'BEHIND', -1 } end
  at, trim, epoch, clock, fresh = from, 0, init, 0, true
end
if at < from then return { 'BEHIND', at } end

-- Read everything first.
local answers, cohorts, stale = {}, {}, {}
if fresh then
  for _, name in ipairs(redis.call('HKEYS', bucket .. ':slots')) do
    if byte(name, 1) == L then stale[#stale + 1] = bucket .. ':labels:' .. sub(name, 3) end
  end
  for _, key in ipairs(stale) do redis.call('EXISTS', key) end -- a slot that moves: see below
elseif from < at then
  for _, entry in ipairs(redis.call('XRANGE', bucket .. ':outbox', '-', '+')) do
    local noted = entry[2]
    for i = 1, #noted, 2 do
      local of = noted[i] == 'answers' and answers or cohorts
      of[#of + 1] = noted[i + 1]
    end
  end
end
local count, first, first_frame = #keys, 1, 1 -- `at` lies between two frames: an offset has one
while frames[first_frame] and frames[first_frame] < at do
  first, first_frame = first + frames[first_frame + 2], first_frame + 3
end
-- While a slot moves, a node that has only some of it answers a command of several keys only if it has all of them: so the bucket's own
-- keys are read along with the entries, or an entry that lies on the other node would be taken for none, or a write fail midway.
local prefix = bucket .. ':' .. epoch .. ':'
if prefix ~= supposed then
  for i = first, count do keys[i] = prefix .. sub(keys[i], #supposed + 1) end
end
local slots_key, outbox_key = bucket, bucket -- of a fresh one there may be no others
if not fresh then slots_key, outbox_key = bucket .. ':slots', bucket .. ':outbox' end
local found = {}
for start = first, count, CHUNK do
  local last = math.min(start + CHUNK - 1, count)
  local some = redis.call('MGET', bucket, slots_key, outbox_key, unpack(keys, start, last))
  for i = start, last do found[i] = some[i - start + 4] end
end
local horizon_slot = floor((clock - horizon) / slot)
local next_slot = (horizon_slot + 1) * slot + horizon -- the time at which the horizon enters it
local turns, reached = {}, {} -- where the horizon entered another slot, and which

-- Fold. Numbers are counted in locals and tables with numeric keys: formatting a key for each record would cost as much as the SET.
local written, place, length = {}, {}, 0 -- key, entry, key, entry, ... to be written; where in it a key's entry is, if keys come repeatedly
local notes, noted = {}, 0
local waiting, labels = { [P] = {}, [F] = {}, [L] = {} }, {} -- labels: slot -> field of its hash -> how many more
local function tally(label, born, came, met)
  local high, low = byte(label, 27, 28)
  if high + low == 0 then return end
  local s, owner = floor(born / slot), sub(label, 29, 28 + high * 256 + low)
  local fields, side = labels[s] or {}, waiting[L]
  labels[s] = fields
  if came then fields[owner], side[s] = (fields[owner] or 0) + 1, (side[s] or 0) + 1 end
  if met then fields[MET .. owner] = (fields[MET .. owner] or 0) + 1 end
end
local predictions, feedback, joined, late, conflicting, duplicate_p, duplicate_f = 0, 0, 0, 0, 0, 0, 0
local i = first - 1
for frame = first_frame, #frames, 3 do
  local start, time = frames[frame], frames[frame + 1]
  if time > clock then
    clock = time
    if clock >= next_slot then
      horizon_slot = floor((clock - horizon) / slot)
      next_slot = (horizon_slot + 1) * slot + horizon
      turns[#turns + 1], reached[#reached + 1] = start, horizon_slot
    end
  end
  local now, here = pack('>I8', clock), floor(clock / slot)
  for position = start, start + frames[frame + 2] - 1 do
    i = i + 1
    local key, value = keys[i], values[i]
    local kind, mine, entry = byte(value, 10), repeated and place[key], nil
    local known = mine and written[mine] or not fresh and found[i] -- a call that began a rebuild may come again after the bucket was dropped
    local is_p = kind == P
    if is_p then predictions = predictions + 1 else feedback = feedback + 1 end
    local age = known and clock - unpack64('>I8', known)
    if not known or age > horizon then
      entry = value
      if time < clock then entry = now .. sub(value, 9) end
      local side = waiting[kind]
      side[here] = (side[here] or 0) + 1
      if not is_p then tally(value, clock, true, false) end
    else
      local other = byte(known, 10)
      if other ~= kind and other ~= J then
        local prediction, label = value, known
        if is_p then
          tally(known, clock - age, false, true)
        else
          prediction, label = known, value
          tally(value, clock, true, true)
        end
        local high, low = byte(prediction, 27, 28)
        entry = now .. J_HEAD[byte(prediction, 9)] .. sub(label, 11, 26) .. sub(prediction, 27, 28 + high * 256 + low)
        local side, s = waiting[other], floor((clock - age) / slot)
        side[s] = (side[s] or 0) - 1
        local verdict = JOINED
        if age > window then verdict, late = LATE, late + 1 else joined = joined + 1 end
        notes[noted + 1], notes[noted + 2], notes[noted + 3], noted = position, verdict, known, noted + 3
      elseif not is_p and sub(value, 19, 26) ~= sub(known, 19, 26) then
        conflicting = conflicting + 1
        local high, low = byte(known, 27, 28)
        local head = sub(known, 1, 28 + high * 256 + low)
        notes[noted + 1], notes[noted + 2], notes[noted + 3], noted = position, CONFLICT, head, noted + 3
      else
        if is_p then duplicate_p = duplicate_p + 1 else duplicate_f = duplicate_f + 1 end
        notes[noted + 1], notes[noted + 2], notes[noted + 3], noted = position, DUPLICATE, '', noted + 3
      end
    end
    if entry and mine then
      written[mine] = entry
    elseif entry then
      written[length + 1], written[length + 2] = key, entry
      length = length + 2
      if repeated then place[key] = length end
    end
  end
end
local moves = {}
for kind, side in pairs(waiting) do
  for s, n in pairs(side) do
    if n ~= 0 then moves[char(kind) .. format(':%.0f', s)] = n end
  end
end
local gone, over, expired, orphan = {}, {}, 0, 0
if #turns > 0 then
  local slots = fresh and {} or redis.call('HGETALL', bucket .. ':slots')
  local left = {}
  for i = 1, #slots, 2 do left[slots[i]] = tonumber(slots[i + 1]) end
  for name, n in pairs(moves) do left[name] = (left[name] or 0) + n end
  for name, n in pairs(left) do
    local kind, s = byte(name, 1), tonumber(sub(name, 3))
    if s < horizon_slot then
      if kind == P then expired = expired + n elseif kind == F then orphan = orphan + n else over[#over + 1] = s end
      gone[#gone + 1], moves[name] = name, nil
    end
  end
end
local function labels_of(s) return bucket .. format(':labels:%.0f', s) end
local told, turn = {}, 1
table.sort(over)
for _, s in ipairs(over) do
  local fields, kept = labels[s] or {}, fresh and {} or redis.call('HGETALL', labels_of(s))
  labels[s] = nil
  for i = 1, #kept, 2 do fields[kept[i]] = (fields[kept[i]] or 0) + tonumber(kept[i + 1]) end
  while reached[turn] <= s do turn = turn + 1 end -- no label of the slot came, or met its prediction, since
  for owner, n in pairs(fields) do
    if sub(owner, 1, 1) ~= MET then
      local t = #told
      told[t + 1], told[t + 2], told[t + 3], told[t + 4], told[t + 5] = turns[turn], s * slot, owner, n, n - (fields[MET .. owner] or 0)
    end
  end
end
for s in pairs(labels) do redis.call('EXISTS', bucket, labels_of(s)) end -- while a slot moves: to be written, it has to be here

-- Write.
if fresh then
  redis.call('DEL', bucket, bucket .. ':outbox', bucket .. ':slots')
  for _, key in ipairs(stale) do redis.call('UNLINK', key) end
  redis.call('HSET', bucket, 'epoch', epoch, 'origin', from)
end
local one_by_one = not MSETEX
for start = 1, one_by_one and 0 or length, 2 * CHUNK do
  local last = math.min(start + 2 * CHUNK - 1, length)
  local some = { unpack(written, start, last) }
  some[#some + 1], some[#some + 2] = 'PX', ttl
  if redis.pcall('MSETEX', (last - start + 1) / 2, unpack(some)) ~= 1 then one_by_one = true end
end
if one_by_one then
  for i = 1, length, 2 do redis.call('SET', written[i], written[i + 1], 'PX', ttl) end
end
for name, n in pairs(moves) do redis.call('HINCRBY', bucket .. ':slots', name, n) end
for _, name in ipairs(gone) do redis.call('HDEL', bucket .. ':slots', name) end
for s, fields in pairs(labels) do
  for field, n in pairs(fields) do redis.call('HINCRBY', labels_of(s), field, n) end
end
for _, s in ipairs(over) do redis.call('UNLINK', labels_of(s)) end
for name, n in pairs({
  predictions = predictions, feedback = feedback, joined = joined, late = late, conflicting = conflicting, expired = expired,
  duplicate_predictions = duplicate_p, duplicate_feedback = duplicate_f, orphan = orphan,
}) do
  if n ~= 0 then redis.call('HINCRBY', bucket, name, n) end
end
if noted > 0 or #told > 0 then
  local entry = { 'answers', cmsgpack.pack(notes) }
  answers[#answers + 1] = entry[2]
  if #told > 0 then
    entry[3], entry[4] = 'cohorts', cmsgpack.pack(told)
    cohorts[#cohorts + 1] = entry[4]
  end
  if math.max(at, to) > committed then
    redis.call('XADD', bucket .. ':outbox', format('%.0f-0', math.max(at, to)), unpack(entry))
  end
end
at = math.max(at, to)
if committed > trim then
  trim = committed
  redis.call('XTRIM', bucket .. ':outbox', 'MINID', format('%.0f-0', trim + 1))
end
redis.call('HSET', bucket, 'applied', at, 'trim', trim, 'clock', clock)
return { 'OK', at, trim, answers, epoch, cohorts }
