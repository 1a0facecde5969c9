-- Posts one message per leg to the collector, after the answer has passed. Never buffers, never waits, never changes an answer.
-- The constants ROLE, COLLECTOR, LIMIT_BYTES and LOST_AFTER_US are written in front of this text.

local legs = {}     -- by request id: legs whose answer has not begun
local order = {}    -- request ids in order of arrival, to find those that never got an answer
local first, last = 1, 0
local lost = {}     -- legs whose answer was cut in the middle

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

-- A header line and both bodies; a length of -1 means that there is no such body, or that it was too long. The label comes last,
-- since it may hold spaces; "-" stands for none, since an empty last field would be trimmed away on the way.
local function post(handle, leg)
  local asked, answered = leg.asked, leg.answered
  local line = table.concat({
    leg.id, leg.arm, ROLE, leg.status, leg.latency_us or -1, asked and #asked or -1, answered and #answered or -1,
    leg.encoding or "identity", leg.served_by or "-",
  }, " ")
  local headers = { [":method"] = "POST", [":path"] = "/legs", [":authority"] = COLLECTOR, ["x-leg"] = line }
  headers["x-leg-segment"] = leg.segment -- a header of value nil is none
  headers["x-leg-key"] = leg.key
  handle:httpCall(
    COLLECTOR,
    headers,
    (asked or "") .. (answered or ""),
    { asynchronous = true, timeout_ms = 1000, send_xff = false, trace_sampled = false }
  )
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
      post(handle, leg)
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
  local headers = handle:headers()
  local leg = { id = headers:get("x-request-id"), arm = handle:metadata():get("arm"), began_us = now }
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
  take_headers(handle, leg)
  local guard = guard_of(leg)
  local answered = watch(handle)
  leg.is_complete = true
  if leg.is_own then
    leg.status = leg.status_seen
    leg.answered = answered
    leg.latency_us = now_us(handle) - (leg.received_us or leg.began_us)
  end
  post(handle, leg)
  guard = nil
end
