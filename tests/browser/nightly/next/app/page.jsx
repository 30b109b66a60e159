import { Uploads } from "./uploads.jsx";

// Rendered by the server for each request.
export default async function Page({ searchParams }) {
  const { user } = await searchParams;
  return <main><h1>Uploads of {user}</h1><Uploads userId={user} /></main>;
}
