// Reviews in three versions: v1 without stars, v2 and v3 with stars from `ratings`.

import { ChannelCredentials, makeGenericClientConstructor, type ServiceError } from "@grpc/grpc-js";
import { serve } from "./http.ts";
import { RATINGS, type RatingsReply, type RatingsRequest } from "./ratings-service.ts";

const PORT = Number(process.env["PORT"] ?? 8080);
const VERSION = process.env["VERSION"] ?? "v1";
const DEADLINE_MS = 3_000;

type Get = (
  request: RatingsRequest,
  options: { deadline: number },
  callback: (error: ServiceError | null, reply?: RatingsReply) => void,
) => void;

const Ratings = makeGenericClientConstructor(RATINGS, "Ratings");
const ratings = new Ratings("ratings:9090", ChannelCredentials.createInsecure()) as unknown as {
  get: Get;
};

serve(PORT, async () => {
  const { stars } = VERSION === "v1" ? { stars: {} as RatingsReply["stars"] } : await getStars();
  const reviews = [
    { reviewer: "ana", text: "No sidecar was harmed." },
    { reviewer: "ben", text: "I restarted nothing." },
  ].map((review) => ({ ...review, stars: stars[review.reviewer] }));
  return { json: { version: VERSION, reviews } };
});

function getStars(): Promise<RatingsReply> {
  return new Promise((resolve, reject) => {
    ratings.get({ book: 1 }, { deadline: Date.now() + DEADLINE_MS }, (error, reply) => {
      if (reply === undefined) reject(new Error(`ratings: ${error?.details ?? "no answer"}`));
      else resolve(reply);
    });
  });
}
