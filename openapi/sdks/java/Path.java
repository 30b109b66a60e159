// openapi-generator's `java` with `--library native`: the JDK's HTTP client, and Jackson.

import dev.valet.ApiClient;
import dev.valet.ApiException;
import dev.valet.api.AccountsApi;
import dev.valet.api.BatchesApi;
import dev.valet.api.GalleryApi;
import dev.valet.api.UploadsApi;
import dev.valet.model.*;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.UUID;

public final class Path {
    private static final String URL = System.getenv("VALET_URL");
    private static final HttpClient HTTP = HttpClient.newHttpClient();

    private record Picture(byte[] bytes, String sha256) {
        /** A picture that was never uploaded before: bytes after the end of an image are accepted. */
        static Picture make() throws Exception {
            byte[] file = Files.readAllBytes(java.nio.file.Path.of(System.getenv("VALET_PICTURE")));
            UUID id = UUID.randomUUID();
            byte[] bytes = ByteBuffer.allocate(file.length + 16).put(file).putLong(id.getMostSignificantBits()).putLong(id.getLeastSignificantBits()).array();
            return new Picture(bytes, Base64.getEncoder().encodeToString(MessageDigest.getInstance("SHA-256").digest(bytes)));
        }

        NewUpload declared() {
            return new NewUpload().fileName("beach.png").contentType(ImageType.PNG).size((long) bytes.length).sha256(sha256);
        }

        BatchUpload item() {
            return new BatchUpload().fileName("beach.png").contentType(ImageType.PNG).size((long) bytes.length).sha256(sha256);
        }
    }

    /** Sends the bytes with the method and the headers of the ticket, and no others. */
    private static int put(PresignedRequest request, byte[] bytes) throws Exception {
        HttpRequest.Builder put = HttpRequest.newBuilder(request.getUrl()).method(request.getMethod(), HttpRequest.BodyPublishers.ofByteArray(bytes));
        request.getHeaders().forEach(put::header);
        return HTTP.send(put.build(), HttpResponse.BodyHandlers.discarding()).statusCode();
    }

    private static void check(boolean holds, Object what) {
        if (!holds) throw new AssertionError(what);
    }

    private interface Call {
        void run() throws ApiException;
    }

    /** Returns the problem of a refused call. */
    private static Problem problem(Call call) throws Exception {
        try {
            call.run();
        } catch (ApiException refused) {
            return ApiClient.createDefaultObjectMapper().readValue(refused.getResponseBody(), Problem.class);
        }
        throw new AssertionError("it was accepted");
    }

    public static void main(String[] arguments) throws Exception {
        // Accounts.
        ApiClient api = new ApiClient();
        api.updateBaseUri(URL);
        SignInCredentials credentials = new SignInCredentials().email(UUID.randomUUID() + "@example.com").password("four words " + UUID.randomUUID());
        AccountsApi anonymous = new AccountsApi(api);
        check(anonymous.signUp(credentials).getUser().getEmail().equals(credentials.getEmail()), "sign-up");
        AuthSession session = anonymous.logIn(credentials);
        AuthSession refreshed = anonymous.refreshSession(new RefreshToken().refreshToken(session.getRefreshToken()));
        check(!refreshed.getRefreshToken().equals(session.getRefreshToken()), "refresh");

        ApiClient signedIn = new ApiClient();
        signedIn.updateBaseUri(URL);
        signedIn.setRequestInterceptor(request -> request.header("authorization", "Bearer " + refreshed.getToken()));
        AccountsApi accounts = new AccountsApi(signedIn);
        UploadsApi uploads = new UploadsApi(signedIn);
        BatchesApi batches = new BatchesApi(signedIn);
        GalleryApi gallery = new GalleryApi(signedIn);

        // From a file to an image.
        List<String> newestFirst = new ArrayList<>();
        Picture picture = null;
        for (int n = 0; n < 2; n++) {
            picture = Picture.make();
            UploadTicket ticket = uploads.createUpload(picture.declared().caption("The sea"), UUID.randomUUID().toString());
            check(ticket.getState().equals("pending"), ticket);
            check(put(ticket.getUpload(), picture.bytes()) == 200 && put(ticket.getUpload(), picture.bytes()) == 412, "PUT, twice");
            newestFirst.add(0, uploads.confirmUpload(ticket.getId()).getId());
        }
        String newest = newestFirst.get(0);

        // The gallery, by pages.
        List<String> seen = new ArrayList<>();
        String cursor = null;
        do {
            ImagePage page = gallery.listImages(1, cursor, null, null);
            page.getImages().forEach(image -> seen.add(image.getId()));
            cursor = page.getNextCursor();
        } while (cursor != null);
        check(seen.equals(newestFirst), seen);

        // Many at once.
        List<Picture> pictures = List.of(Picture.make(), Picture.make());
        UploadResults opened = batches.createUploads(new UploadBatch().items(pictures.stream().map(Picture::item).toList()));
        ImageIds ids = new ImageIds();
        for (int n = 0; n < 2; n++) {
            UploadResult result = opened.getResults().get(n);
            check(result.getStatus() == 201 && put(result.getTicket().getUpload(), pictures.get(n).bytes()) == 200, result);
            ids.addIdsItem(result.getTicket().getId());
        }
        check(batches.confirmUploads(ids).getResults().stream().map(result -> result.getImage().getId()).toList().equals(ids.getIds()), "confirm");
        check(batches.deleteImages(ids).getResults().stream().allMatch(result -> result.getStatus() == 204), "delete");

        // One image.
        GalleryImage image = gallery.getImage(newest);
        check(image.getCaption().equals("The sea") && image.getSize() == picture.bytes().length, image);
        byte[] served = HTTP.send(HttpRequest.newBuilder(image.getUrl()).build(), HttpResponse.BodyHandlers.ofByteArray()).body();
        check(Arrays.equals(served, picture.bytes()), "the bytes");
        check(gallery.updateImage(newest, new ImageUpdate().caption("The harbour")).getCaption().equals("The harbour"), "caption");
        StorageUsage usage = accounts.getMe().getUsage();
        check(usage.getImages() == 2 && usage.getQuotaBytes() > Integer.MAX_VALUE, usage);
        check(gallery.deleteImageWithHttpInfo(newest, null).getStatusCode() == 204, "delete");

        // Problems.
        check(problem(() -> gallery.getImage(newest)).getCode().equals("not_found"), "not found");
        SignInCredentials wrong = new SignInCredentials().email(credentials.getEmail()).password("not the password");
        check(problem(() -> anonymous.logIn(wrong)).getCode().equals("invalid_credentials"), "wrong password");
        Picture another = Picture.make();
        Problem large = problem(() -> uploads.createUpload(another.declared().size(1L << 50), null));
        check(large.getCode().equals("file_too_large") && large.getErrors().get(0).getField().equals("size"), large);

        accounts.logOut(new RefreshToken().refreshToken(refreshed.getRefreshToken()));
        check(problem(accounts::getMe).getCode().equals("session_ended"), "session ended");
    }
}
