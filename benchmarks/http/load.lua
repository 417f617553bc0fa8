-- What wrk sends: told by the environment (see loads.settings), reported as one line of JSON.
local path = os.getenv("LOAD_PATH") or "/"
local depth = tonumber(os.getenv("LOAD_DEPTH") or "1")
local ids = tonumber(os.getenv("LOAD_IDS") or "0")

if os.getenv("LOAD_CLOSE") then
  wrk.headers["Connection"] = "close"
end
if os.getenv("LOAD_BODY") then
  wrk.method = "POST"
  wrk.body = os.getenv("LOAD_BODY")
  wrk.headers["Content-Type"] = os.getenv("LOAD_BODY_TYPE")
elseif os.getenv("LOAD_BODY_SIZE") then
  wrk.method = "POST"
  wrk.body = string.rep(os.getenv("LOAD_BODY_BYTE"), tonumber(os.getenv("LOAD_BODY_SIZE")))
  wrk.headers["Content-Type"] = "application/octet-stream"
end

local raw = os.getenv("LOAD_RAW")
local prepared = {}
local at = 0

function init(args)
  if raw then
    prepared[1] = raw
  elseif ids > 0 then
    for i = 1, ids do
      prepared[i] = wrk.format(nil, path .. i)
    end
  else
    prepared[1] = string.rep(wrk.format(nil, path), depth)
  end
end

if ids > 0 then
  function request()
    at = at % ids + 1
    return prepared[at]
  end
elseif raw or depth > 1 then
  function request()
    return prepared[1]
  end
else
  -- Without `request`, wrk sends one request made beforehand and its own core costs less.
  wrk.path = path
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"bytes":%d,"seconds":%.6f,"p50":%.1f,"p99":%.1f,"read":%d,"failed":%d}\n',
    summary.requests, summary.bytes, summary.duration / 1e6,
    latency:percentile(50.0), latency:percentile(99.0),
    errors.read, errors.connect + errors.write + errors.status + errors.timeout))
end
