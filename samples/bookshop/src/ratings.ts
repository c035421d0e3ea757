// Stars for reviews, over gRPC.

import { Server, ServerCredentials, type sendUnaryData, type ServerUnaryCall } from "@grpc/grpc-js";
import { RATINGS, type RatingsReply, type RatingsRequest } from "./ratings-service.ts";

const PORT = Number(process.env["PORT"] ?? 9090);

const server = new Server();
server.addService(RATINGS, {
  get: (_: ServerUnaryCall<RatingsRequest, RatingsReply>, callback: sendUnaryData<RatingsReply>) =>
    callback(null, { stars: { ana: 5, ben: 4 } }),
});
server.bindAsync(`[::]:${PORT}`, ServerCredentials.createInsecure(), (error) => {
  if (error !== null) throw error;
  console.log(`listening on ${PORT}`);
});
process.on("SIGTERM", () => server.tryShutdown(() => process.exit(0)));
