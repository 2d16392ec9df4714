-- For wrk: each request is for one of so many files by chance, as rungs.Place names them.
local requests = {}

function init(args)
   for number = 0, tonumber(args[1]) - 1 do
      local path = string.format("/d%03d/%06d.txt", math.floor(number / 1000), number)
      requests[number + 1] = wrk.format("GET", path)
   end
end

function request()
   return requests[math.random(#requests)]
end
