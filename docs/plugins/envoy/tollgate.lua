-- Tells Tollgate how a request that it has admitted ended. envoy.yaml beside this file shows how it is wired.

local CLUSTER = "tollgate"
local TIMEOUT_MS = 10000

function envoy_on_response(handle)
  -- Set by ext_authz alone: a caller cannot write it. Not there when Tollgate has refused.
  local told = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.ext_authz")
  local answer_to = told and told["x-tollgate-answer-to"]
  if not answer_to then
    return
  end
  local status = handle:headers():get(":status")
  local content_type = handle:headers():get("content-type") or ""
  -- Every piece goes on to the caller at once, and is remembered.
  local pieces = {}
  for piece in handle:bodyChunks() do
    if piece:length() > 0 then
      pieces[#pieces + 1] = piece:getBytes(0, piece:length())
    end
  end
  handle:httpCall(
    CLUSTER,
    {
      [":method"] = "POST",
      [":path"] = answer_to .. "&status=" .. status,
      [":authority"] = CLUSTER,
      ["content-type"] = content_type,
    },
    table.concat(pieces),
    TIMEOUT_MS,
    true
  )
end
