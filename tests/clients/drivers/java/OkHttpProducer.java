import com.google.gson.Gson;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.List;
import okhttp3.MediaType;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.RequestBody;
import okhttp3.Response;
import okio.BufferedSink;

/** OkHttp as it is made without options. */
public class OkHttpProducer {
  record Post(String body, boolean chunked) {}

  static final MediaType JSON = MediaType.get("application/json");

  public static void main(String[] arguments) throws IOException {
    Gson gson = new Gson();
    OkHttpClient client = new OkHttpClient();
    for (Post post : gson.fromJson(new InputStreamReader(System.in), Post[].class)) {
      RequestBody body = post.chunked() ? streamed(post.body()) : RequestBody.create(post.body(), JSON);
      Request request = new Request.Builder().url(arguments[0]).post(body).build();
      try (Response response = client.newCall(request).execute()) {
        System.out.println(gson.toJson(List.of(response.code(), response.body().string())));
      }
    }
    client.dispatcher().executorService().shutdown();
    client.connectionPool().evictAll();
  }

  static RequestBody streamed(String text) {
    return new RequestBody() {
      @Override
      public MediaType contentType() {
        return JSON;
      }

      @Override
      public void writeTo(BufferedSink sink) throws IOException {
        sink.writeUtf8(text);
      }
    };
  }
}
