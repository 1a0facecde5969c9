-- Holds the candidate's whole answer back until it is complete and usable, so that the route can still ask the incumbent instead.
-- Runs twice between one server and the router: first STEP "cut", then STEP "hold". What the rescuing incumbent answers passes as
-- it comes, and a usable answer is never changed. A try that ends early (reset, deadline) ends here, with nothing sent on.
-- The constants STEP, ORIGIN, CANDIDATE and LIMIT_BYTES are written in front of this text.

local function origin(handle)
  return string.match(handle:headers():get(ORIGIN) or "", "^(%S+) (.*)$")
end

-- Answers over the limit of the last second. Five at once are a flood, as five failures in a row eject a server: reading on would
-- keep this thread busy with what nobody gets, so answers of unknown length are then refused unread, until a second has passed.
local FLOOD_COUNT, FLOOD_US = 5, 1e6
local since_us, count = 0, 0

local function is_flood(now)
  if now - since_us > FLOOD_US then
    since_us, count = now, 0
  end
  return count >= FLOOD_COUNT
end

local function now_us(handle)
  return tonumber(handle:timestampString(EnvoyTimestampResolution.MICROSECOND))
end

-- Drops what is beyond the limit of an answer that did not announce its length, one byte short of all: "hold" sees that it is too
-- long. Envoy's own limit would answer 500 to the user, with no way to ask the incumbent.
local function cut(handle)
  if origin(handle) ~= CANDIDATE or handle:headers():get("content-length") then
    return
  end
  if is_flood(now_us(handle)) then
    handle:headers():replace(":status", "502")
    return
  end
  local room = LIMIT_BYTES + 1
  for chunk in handle:bodyChunks() do
    local length = chunk:length()
    if length >= room and room > 0 then
      count = count + 1
    end
    if length > room then
      chunk:setBytes(chunk:getBytes(0, room))
    end
    room = math.max(0, room - length)
  end
end

-- Whether a JSON text holds a bare NaN or Infinity, which only Python takes for JSON. Inside of strings both are harmless.
local function has_no_number(text)
  if not (string.find(text, "NaN", 1, true) or string.find(text, "Infinity", 1, true)) then
    return false
  end
  local bare = string.gsub(string.gsub(text, "\\.", ""), '"[^"]*"', "")
  return string.find(bare, "NaN", 1, true) ~= nil or string.find(bare, "Infinity", 1, true) ~= nil
end

-- Plainly unusable only: whether the prediction is any good is for the judge.
local function is_usable(text)
  local first, last = string.match(text, "^%s*(%S)"), string.match(text, "(%S)%s*$")
  local is_whole = (first == "{" and last == "}") or (first == "[" and last == "]")
  return is_whole and not has_no_number(text)
end

-- Nobody asked for a packed answer (see `answer_filters`), and nobody here could look into it.
local function is_packed(handle)
  return (handle:headers():get("content-encoding") or "identity") ~= "identity"
end

local function hold(handle)
  local arm, asked = origin(handle)
  handle:headers():remove(ORIGIN)
  if arm ~= CANDIDATE or tonumber(handle:headers():get(":status")) >= 400 then
    return -- the route asks the incumbent at once, whatever may follow
  end
  local is_prediction = string.find(asked, "^POST /invocations") ~= nil
  local is_odd = is_prediction and (handle:headers():get(":status") ~= "200" or is_packed(handle)) -- no redirect is a prediction
  if is_odd or (tonumber(handle:headers():get("content-length") or "") or 0) > LIMIT_BYTES then
    handle:headers():replace(":status", "502")
    return
  end
  local body = handle:body(true) -- waits
  local length = body:length()
  local is_unusable = is_prediction and (length == 0 or not is_usable(body:getBytes(0, length)))
  if length > LIMIT_BYTES or is_unusable then
    handle:headers():replace(":status", "502")
  end
end

function envoy_on_response(handle)
  if STEP == "cut" then
    cut(handle)
  else
    hold(handle)
  end
end
