// A thread that echoes one connection on loopback and then has nothing more to do. It tells its port.

import { parentPort } from "node:worker_threads";
import { parseIp } from "../net/ip.ts";
import { acceptBytes } from "../sys/accept-bytes.ts";
import { listenTcp, localPort } from "../sys/sockets.ts";

const fd = listenTcp(undefined, { address: { ip: parseIp("127.0.0.1")!, port: 0 } });
const port = localPort(fd);
const listener = acceptBytes(fd, (socket) => {
  listener.close();
  socket.handler = {
    onBytes: (bytes) => void socket.write(bytes),
    onEnd: () => socket.end(),
    onWritable: () => undefined,
    onClose: () => undefined,
  };
  socket.resume();
});
parentPort!.postMessage(port);
