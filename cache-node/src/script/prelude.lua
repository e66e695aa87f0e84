-- What a script finds: Redis's environment, built once per interpreter and closed against change.
-- `host` is filled by the node: call, is_over, sha1hex, log, setresp, encode, decode.
local host, cjson_null = ...

local error, getmetatable, pcall, rawget, setmetatable, tostring, type, xpcall =
    error, getmetatable, pcall, rawget, setmetatable, tostring, type, xpcall
local loadstring, byte = loadstring, string.byte

local function readonly(inner)
    return setmetatable({}, {
        __index = inner,
        __newindex = function() error("Attempt to modify a readonly table", 2) end,
        __metatable = false,
    })
end

local redis = {
    LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2, LOG_WARNING = 3,
    REPL_NONE = 0, REPL_SLAVE = 1, REPL_REPLICA = 1, REPL_AOF = 2, REPL_ALL = 3,
    REDIS_VERSION = host.version, REDIS_VERSION_NUM = host.version_number,
    sha1hex = host.sha1hex, log = host.log, setresp = host.setresp,
    pcall = function(...) return host.call(...) end,
    replicate_commands = function() return true end,
    set_repl = function() end,
    breakpoint = function() return false end,
    debug = function() end,
}

function redis.call(...)
    local reply = host.call(...)
    if type(reply) == "table" and reply.err then
        local _, where = pcall(error, "", 3)
        reply.where = where
        error(reply, 0)
    end
    return reply
end

function redis.status_reply(text)
    if type(text) ~= "string" then return { err = "ERR wrong number or type of arguments" } end
    return { ok = text }
end

function redis.error_reply(text)
    if type(text) ~= "string" then return { err = "ERR wrong number or type of arguments" } end
    if byte(text, 1) == 45 then return { err = text:sub(2) } end
    -- A text without a prefix of its own gets the general one.
    if not text:find(" ", 1, true) then return { err = "ERR " .. text } end
    return { err = text }
end

-- A script that has used up its time ends even where it catches its errors.
local function checked(ok, ...)
    if not ok and host.is_over() then error(host.over, 0) end
    local raised = ...
    -- What a command raised is a table; Redis's own pcall gives its text.
    if not ok and type(raised) == "table" and type(rawget(raised, "err")) == "string" then return false, raised.err end
    return ok, ...
end

local resume = coroutine.resume
local environment = {
    _VERSION = _VERSION, assert = assert, error = error, getmetatable = getmetatable, ipairs = ipairs, next = next, pairs = pairs,
    rawequal = rawequal, rawget = rawget, select = select, setmetatable = setmetatable, tonumber = tonumber, tostring = tostring,
    type = type, unpack = unpack,
    pcall = function(f, ...) return checked(pcall(f, ...)) end,
    xpcall = function(f, handler) return checked(xpcall(f, handler)) end,
    -- Precompiled code could read and write any memory.
    loadstring = function(source, name)
        if type(source) ~= "string" or byte(source, 1) == 27 then error("loadstring takes source text only", 2) end
        return loadstring(source, name)
    end,
    coroutine = readonly({
        create = coroutine.create, running = coroutine.running, status = coroutine.status, wrap = coroutine.wrap, yield = coroutine.yield,
        resume = function(...) return checked(resume(...)) end,
    }),
    cjson = readonly({ encode = host.encode, decode = host.decode, null = cjson_null }),
    math = readonly(math),
    redis = readonly(redis),
    server = readonly(redis),
    string = readonly(string),
    table = readonly(table),
}
string.dump = nil
getmetatable("").__metatable = false

local globals, pairs = _G, pairs
for name in pairs(globals) do globals[name] = nil end
for name, value in pairs(environment) do globals[name] = value end
globals._G = globals
setmetatable(globals, {
    __index = function(_, name)
        error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
    end,
    __newindex = function(_, name)
        error("Script attempted to create global variable '" .. tostring(name) .. "'", 2)
    end,
    __metatable = false,
})

-- Runs a script; an error comes back as a value, tables included.
return function(script) return pcall(script) end
