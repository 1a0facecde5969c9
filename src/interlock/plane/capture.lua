-- Posts one message per leg to the collector, after the answer has passed, and one per input that is kept. Never buffers, never waits,
-- never changes an answer. Written in front of this text: ROLE, COLLECTOR, LIMIT_BYTES, LOST_AFTER_US, INPUT_SHARE_BPS, INPUTS_PER_SECOND.

local legs = {}     -- by request id: legs whose answer has not begun
local order = {}    -- request ids in order of arrival, to find those that never got an answer
local first, last = 1, 0
local lost = {}     -- legs whose answer was cut in the middle
local inputs_since_us, input_count = 0, 0

local function now_us(handle)
  return tonumber(handle:timestampString(EnvoyTimestampResolution.MICROSECOND))
end

-- The text of a body as it streams by, or nil when it is longer than the limit.
local function watch(handle)
  local parts, size = {}, 0
  for chunk in handle:bodyChunks() do
    local length = chunk:length()
    size = size + length
    if length > 0 and size <= LIMIT_BYTES then
      parts[#parts + 1] = chunk:getBytes(0, length)
    end
  end
  if size > LIMIT_BYTES then
    return nil
  end
  return table.concat(parts)
end

local function send(handle, headers, body)
  headers[":method"], headers[":authority"] = "POST", COLLECTOR
  handle:httpCall(COLLECTOR, headers, body, { asynchronous = true, timeout_ms = 1000, send_xff = false, trace_sampled = false })
end

-- A header line and both bodies; a length of -1 means that there is no such body, or that it was too long. The label comes last,
-- since it may hold spaces; "-" stands for none, since an empty last field would be trimmed away on the way.
local function post(handle, leg)
  local asked, answered = leg.asked, leg.answered
  local line = table.concat({
    leg.id, leg.arm, ROLE, leg.status, leg.latency_us or -1, asked and #asked or -1, answered and #answered or -1,
    leg.encoding or "identity", leg.served_by or "-",
  }, " ")
  local headers = { [":path"] = "/legs", ["x-leg"] = line }
  headers["x-leg-segment"] = leg.segment -- a header of value nil is none
  headers["x-leg-key"] = leg.key
  send(handle, headers, (asked or "") .. (answered or ""))
end

-- The body of a request that was answered well, with its length (-1: too long to be kept) and content type in the header line.
local function post_input(handle, leg)
  if not leg.received_us or leg.status_seen < 200 or leg.status_seen > 299 then
    return -- answered before it had been read whole, or not well
  end
  local asked = leg.asked
  send(handle, { [":path"] = "/inputs", ["x-leg"] = (asked and #asked or -1) .. " " .. leg.content_type }, asked or "")
end

local function has_room_for_input(now)
  if now - inputs_since_us > 1e6 then
    inputs_since_us, input_count = now, 0
  end
  input_count = input_count + 1
  return input_count <= INPUTS_PER_SECOND
end

-- Of two legs the incumbent's brings the input, whoever answered the user: what fails on the candidate alone must not be missing.
local function is_kept_input(leg, now)
  local drawn = (tonumber(string.sub(leg.id, 1, 7), 16) or 0) % 10000 < INPUT_SHARE_BPS
  return leg.arm == "incumbent" and drawn and has_room_for_input(now)
end

local function post_lost(handle)
  while #lost > 0 do
    post(handle, table.remove(lost))
  end
end

-- No answer ever began: the client left first (everything else ends in an answer made by Envoy). 499 blames the client.
local function post_forgotten(handle, now)
  while first <= last do
    local leg = legs[order[first]]
    if leg and now - leg.began_us < LOST_AFTER_US then
      return
    end
    if leg then
      legs[leg.id] = nil
      leg.status = 499
      if not leg.is_input_only then
        post(handle, leg)
      end
    end
    order[first] = nil
    first = first + 1
  end
end

-- A stream that dies in mid-answer never resumes this script. Its coroutine becomes garbage, and the guard in it speaks up.
local function guard_of(leg)
  local guard = newproxy(true)
  getmetatable(guard).__gc = function()
    if not leg.is_complete then
      lost[#lost + 1] = leg
    end
  end
  return guard
end

function envoy_on_request(handle)
  local now = now_us(handle)
  collectgarbage("step", 8) -- or a leg that was cut would be noticed only some 50 requests later, instead of 10
  post_lost(handle)
  post_forgotten(handle, now)
  local headers, metadata = handle:headers(), handle:metadata()
  local leg = { id = headers:get("x-request-id"), arm = metadata:get("arm"), began_us = now }
  leg.is_input_only, leg.content_type = metadata:get("keeps") == "input", string.sub(headers:get("content-type") or "-", 1, 100)
  if leg.is_input_only and not has_room_for_input(now) then
    return
  end
  leg.segment, leg.key = headers:get("interlock-segment"), headers:get("interlock-key")
  legs[leg.id] = leg
  last = last + 1
  order[last] = leg.id
  leg.asked = watch(handle)
  leg.received_us = now_us(handle)
end

local function take_headers(handle, leg)
  local headers = handle:headers()
  local by_upstream = headers:get("x-interlock-answer") == "via_upstream"
  local by_own_endpoint = headers:get("x-interlock-endpoint-arm") == leg.arm
  local at_once = leg.arm == "incumbent" or headers:get("x-interlock-attempts") == "1"
  leg.served_by = headers:get("x-interlock-served-by")
  leg.encoding = string.gsub(headers:get("content-encoding") or "identity", "%s", "")
  leg.is_own = by_upstream and by_own_endpoint and at_once
  leg.status_seen = tonumber(headers:get(":status"))
  leg.status = 0
  if not by_upstream then
    headers:remove("x-interlock-served-by")
  end
  headers:remove("x-interlock-answer")
  headers:remove("x-interlock-attempts")
  headers:remove("x-interlock-endpoint-arm")
end

function envoy_on_response(handle)
  local id = handle:headers():get("x-request-id")
  local leg = legs[id]
  if not leg then
    return
  end
  legs[id] = nil
  if leg.is_input_only then
    leg.status_seen = tonumber(handle:headers():get(":status"))
    post_input(handle, leg)
    return
  end
  take_headers(handle, leg)
  local guard = guard_of(leg)
  local answered = watch(handle)
  leg.is_complete = true
  if leg.is_own then
    leg.status = leg.status_seen
    leg.answered = answered
    leg.latency_us = now_us(handle) - (leg.received_us or leg.began_us)
    if is_kept_input(leg, now_us(handle)) then
      post_input(handle, leg)
    end
  end
  post(handle, leg)
  guard = nil
end
