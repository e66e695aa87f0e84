-- What a script finds: Redis's environment, built once per interpreter and closed against change.
-- `host` is filled by the node: call, pcall, check, is_over, sha1hex, log, setresp, encode, decode.
local host, cjson_null = ...

local error, getmetatable, ipairs, pairs, pcall, rawget, setmetatable, tostring, type =
    error, getmetatable, ipairs, pairs, pcall, rawget, setmetatable, tostring, type
local loadstring, byte = loadstring, string.byte

local closed = {}

local function readonly(inner)
    local outer = setmetatable({}, {
        __index = inner,
        __newindex = function() error("Attempt to modify a readonly table", 2) end,
        __metatable = false,
    })
    closed[outer] = true
    return outer
end

-- Lua's own functions on tables write past `__newindex`, and what they leave in a table of ours the next script would find.
local functions_on_tables = {}
for name, f in pairs(table) do functions_on_tables[name] = f end
for _, name in ipairs({ "insert", "remove", "sort" }) do
    local f = table[name]
    functions_on_tables[name] = function(t, ...)
        if closed[t] then error("Attempt to modify a readonly table", 2) end
        return f(t, ...)
    end
end

local redis = {
    LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2, LOG_WARNING = 3,
    REPL_NONE = 0, REPL_SLAVE = 1, REPL_REPLICA = 1, REPL_AOF = 2, REPL_ALL = 3,
    REDIS_VERSION = host.version, REDIS_VERSION_NUM = host.version_number,
    sha1hex = host.sha1hex, log = host.log, setresp = host.setresp,
    call = host.call, pcall = host.pcall,
    acl_check_cmd = host.check,
    replicate_commands = function() return true end,
    set_repl = function() end,
    breakpoint = function() return false end,
    debug = function() end,
}

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

-- The handler runs after the error was caught and not while it is raised: there it would run where no hook can end it.
local function handled(handler, ok, ...)
    if ok then return ok, ... end
    if host.is_over() then error(host.over, 0) end
    local is_handled, result = pcall(handler, ...)
    if not is_handled and host.is_over() then error(host.over, 0) end
    return false, is_handled and result or "error in error handling"
end

local resume = coroutine.resume
local globals = _G
local environment
environment = {
    _VERSION = _VERSION, assert = assert, error = error, getmetatable = getmetatable, ipairs = ipairs, next = next, pairs = pairs,
    rawequal = rawequal, rawget = function(t, name) return rawget(t == globals and environment or t, name) end, select = select, setmetatable = setmetatable, tonumber = tonumber, tostring = tostring,
    type = type, unpack = unpack,
    pcall = function(f, ...) return checked(pcall(f, ...)) end,
    xpcall = function(f, handler) return handled(handler, pcall(f)) end,
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
    table = readonly(functions_on_tables),
}
string.dump = nil
getmetatable("").__metatable = false

-- The globals are an empty table in front of the environment: so a script cannot put anything in the place of `redis` or `tostring`
-- for those that come after it.
for name in pairs(globals) do globals[name] = nil end
environment._G = globals
closed[globals] = true
setmetatable(environment, {
    __index = function(_, name)
        error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
    end,
})
setmetatable(globals, {
    __index = environment,
    __newindex = function() error("Attempt to modify a readonly table", 2) end,
    __metatable = false,
})

-- KEYS and ARGV go into it for each script.
return environment
